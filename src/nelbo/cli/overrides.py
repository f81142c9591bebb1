"""The command line of Hydra: names and values of options, quotes, and the folder of ``resume=``."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+")  # needs no quotes in Hydra and in a shell
# In a command line of Hydra: the files in .hydra belong to another process, or to an earlier command
WITHOUT_HYDRA_FILES = "hydra.output_subdir=null"
# Names on the command line, and in the configuration: in evaluate.yaml an experiment is a plain option, in
# sample.yaml a format is that of the images. Hydra would use both as choices of the groups of these names.
SHORT_NAMES = {
    "train": {"sweep": "hydra/sweeper"},
    "evaluate": {"experiment": "trained_as", "format": "format@checkpoint_format"},
    "sample": {"experiment": "trained_as", "format": "image_format"},
}
AUTO = "auto"  # resume=auto resumes the run in hydra.run.dir, or starts one there


def option_name(option: str) -> str:
    """The name in ``name=value`` or ``+name=value``."""
    return option.partition("=")[0].lstrip("+")


def quoted(text: str) -> str:
    """A string as a value of Hydra, with quotes and escapes.

    Hydra takes a backslash before a quote, and OmegaConf one before an interpolation, as an escape; any other
    backslash is itself.
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", plain)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def as_typed(name: str, text: str) -> str:
    """An option as it is typed in a shell."""
    return f"{name}={text}" if PLAIN.fullmatch(text) else shlex.quote(f"{name}={quoted(text)}")


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """The last value of an option on a command line; None if it is missing or null.

    A value that Hydra cannot parse, such as a path with ``=`` in it, is returned unchanged.
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


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """The folder of ``resume=FOLDER``, or for ``resume=auto`` that of ``hydra.run.dir=``; None without them.

    Raises:
        ValueError: for an empty value, or ``auto`` without a folder.
    """
    named = value_of(arguments, "resume")
    if named is None:
        return None
    if not named:
        raise ValueError("resume= names no run: resume=FOLDER resumes one, without it a new one starts")
    if named != AUTO:
        return Path(named)
    folder = value_of(arguments, "hydra.run.dir")
    if folder is None:
        raise ValueError("resume=auto must know where: add hydra.run.dir=FOLDER")
    return Path(folder)


def split_command_line(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags (``-m``, ``--config-dir FOLDER``) and the options (``name=value``) of a command line.

    Hydra's parser accepts flags only before or after all of the options.
    """
    options = get_args_parser().parse_intermixed_args(arguments).overrides
    return [argument for argument in arguments if argument not in options], options
