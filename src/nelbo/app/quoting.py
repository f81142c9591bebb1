"""Strings as values of options on a command line of Hydra's."""

import re


def quoted(text: str) -> str:
    """A value that is this string, whatever is in it.

    Hydra takes a backslash before a quote, and OmegaConf one before an interpolation, as an escape; any other
    backslash is itself.
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", plain)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"
