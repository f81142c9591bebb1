"""Text from outside (names of folders, data and classes, values of options, messages) made safe to show."""

import difflib
import html
import json
import re
from collections.abc import Iterable
from typing import Any

# C0 and C1 controls, line and paragraph separators, marks and overrides of the writing direction, surrogates
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """One line of text in which no character acts on the terminal or on the text around it.

    Args:
        text: what is shown; anything that is not a string is converted first.

    Returns:
        The text, with its control characters as escapes: ESC is shown as ``\\x1b``.
    """
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_lines(text: object) -> str:
    """Like :func:`printable`, of a text of several lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def plotly_text(text: object) -> str:
    """Text for a label of a plotly figure.

    Plotly reads a subset of HTML in legends, ticks, axis titles and hover labels, links included.
    """
    return html.escape(printable(text), quote=False)


def json_to_validate(value: Any) -> bytes:
    """JSON for a check of types, which is not stored.

    The name of a file that is not UTF-8 holds lone surrogates, which a validator refuses in JSON. Each of
    them is replaced by a question mark.
    """
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The hint `` (did you mean cosine?)`` for a misspelt name; empty if none of the choices is close."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
