"""Strings as values of options on a command line of Hydra's, and back."""

import re
import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+")  # what Hydra and a shell take as it is


def quoted(text: str) -> str:
    """A value that is this string, whatever is in it.

    Hydra takes a backslash before a quote, and OmegaConf one before an interpolation, as an escape; any other
    backslash is itself.
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", plain)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def as_typed(name: str, text: str) -> str:
    """An option as a person can type it into a shell."""
    return f"{name}={text}" if PLAIN.fullmatch(text) else shlex.quote(f"{name}={quoted(text)}")


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """What an option is set to, the last time that it is; None where it is not, or null.

    What Hydra cannot read, a path with ``=`` in it for one, is taken as it stands.
    """
    given = [argument for argument in arguments if argument.startswith(f"{name}=")]
    if not given:
        return None
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException:
        return given[-1].partition("=")[2]
    if value is None:
        return None
    try:
        return str(OmegaConf.create({"value": value}).value)
    except OmegaConfBaseException:  # an interpolation, such as of the time, that only Hydra can resolve
        return str(value)


def split_command_line(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags (``-m``, ``--config-dir FOLDER``) and the options (``name=value``) of a command line.

    Hydra's parser accepts flags only before or after all of the options.
    """
    options = get_args_parser().parse_intermixed_args(arguments).overrides
    return [argument for argument in arguments if argument not in options], options
