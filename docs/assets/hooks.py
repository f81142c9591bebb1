"""Hooks of MkDocs: formulas are typeset while the site is built, so that it needs no network."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\((.+?)\\\)|\\\[(.+?)\\\])</\1>', re.S)
ROLE = re.compile(r":(?:class|func|meth|mod):(?=<code>)")  # docstrings say :class:`Name`


def on_page_content(content: str, **_: object) -> str:
    """The page with MathML in place of LaTeX, and names without their roles."""
    return ROLE.sub("", FORMULA.sub(typeset, content))


def typeset(formula: re.Match[str]) -> str:
    """MathML, which browsers know."""
    inline, block = formula[2], formula[3]
    latex = html.unescape(inline or block)
    return convert(latex, display="inline" if inline else "block")
