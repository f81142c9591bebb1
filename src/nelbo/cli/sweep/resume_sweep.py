"""``resume=FOLDER`` for the folder of a sweep: the command line that continues it."""

import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

from nelbo.atomic_file import read_yaml
from nelbo.cli.overrides import option_name, quoted, resumed_folder, split_command_line
from nelbo.cli.sweep.folder import MAX_JOBS
from nelbo.compose.config import config_groups
from nelbo.compose.resumed_config import OUTPUTS, could_leave_folder
from nelbo.compose.stored_config import CODE_ARGUMENTS, NAMED, SPECIAL_KEYS, WANDB_LOGGER, excerpt
from nelbo.runs.paths import SWEEP

NOT_REPEATED = ("hydra.sweep.dir=", "hydra.run.dir=", "hydra.mode=")
LAUNCHERS = {"basic", "joblib"}  # of a sweep's file; submitit reads pickles in the folder that it is given
# Options of Hydra that a sweep's file may repeat. Others can start programs or read other folders, such as
# hydra.job.env_set, hydra.searchpath, and hydra.sweeper.params, which holds whole options.
HYDRA_OPTIONS = {"hydra/launcher", "hydra/sweeper", "hydra.sweep.subdir", "hydra.launcher.n_jobs"} | {
    f"hydra.sweeper.{name}"
    for name in ("n_trials", "n_jobs", "study_name", "direction", "seed", "max_batch_size")
}
# Options that are for one command, that name code, or that name a place to write
REFUSED = {
    "trust",
    "resume",
    "trained_with",
    *OUTPUTS,
    *(name for names in CODE_ARGUMENTS.values() for name in names),
}
SUBMITIT_FOLDER = "hydra.launcher.submitit_folder"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.=-]*")
YAML_NAME = re.compile(r"[\w*?][\w.=*?-]*")  # or a pattern of such names


def add_resumed_sweep(arguments: Sequence[str], command: str) -> list[str]:
    """The same command line, with the options of the sweep that it continues, if there is one.

    The file of a sweep is data: an option in it that could interpolate or name a class is refused.

    Args:
        arguments: a command line.
        command: ``train``, ``evaluate`` or ``sample``.

    Raises:
        ValueError: for a sweep of another command, options that would make other jobs of it, or a file with
            options that are refused.
    """
    folder = resumed_folder(arguments)
    if folder is None or not (folder / SWEEP).is_file():
        return list(arguments)
    flags, options = split_command_line(arguments)
    flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
    new = [option for option in options if not option.startswith("resume=")]
    refused = [option for option in new if not option.lstrip("+~").startswith(("hydra.", "hydra/", "trust="))]
    if refused:
        raise ValueError(
            f"{refused[0]}: a sweep is resumed as it was started; only hydra options and trust= can be given"
        )
    kept_command, task, hydra = _read(folder / SWEEP)
    if kept_command != command:
        raise ValueError(f"{folder} is a sweep of {kept_command}.py: resume it there")
    given = set(map(_name, new))
    replaced = NOT_REPEATED
    if "hydra/launcher" in given:
        replaced += ("hydra/launcher=", "hydra.launcher.", "+hydra.launcher.", "++hydra.launcher.")
    hydra_options = [
        option for option in hydra if not option.startswith(replaced) and _name(option) not in given
    ]
    for option in (*task, *hydra_options):
        if option in new:  # this command has it too
            continue
        name = _name(option)
        if not (_is_plain_of_hydra(option) if option in hydra_options else _is_plain(option, command)):
            remedy = (
                f"add {excerpt(name)}=... to this command"
                if option in hydra_options or name == "trust"
                else f"repeat the command that started the sweep, with hydra.sweep.dir={folder}"
            )
            raise ValueError(
                f"{folder / SWEEP}: the option {excerpt(option)} is refused; to use it, {remedy}"
            )
    new = [option for option in new if option not in task]
    if any(option.startswith("hydra/launcher=submitit") for option in new) and SUBMITIT_FOLDER not in given:
        new.append(
            f"{SUBMITIT_FOLDER}={quoted(str(folder.resolve() / f'.submitit-{secrets.token_hex(8)}' / '%j'))}"
        )
    return ["--multirun", *flags, *task, *hydra_options, f"hydra.sweep.dir={quoted(str(folder))}", *new]


def _name(option: str) -> str:
    return option_name(option).lstrip("~")  # of an option that is removed


def _is_plain(option: str, command: str) -> bool:
    """Whether an option of a command sets plain values, and none that names code or a place to write."""
    from nelbo.compose.options import option_names

    parsed = _parsed(option)
    if parsed is None:
        return False
    override, values = parsed
    groups = config_groups()
    keys = re.split(r"[./]", override.key_or_group)
    names = {*keys, *(override.package or keys[0]).split(".")}
    if not all(map(PLAIN_NAME.fullmatch, names)) or names & {"hydra", *REFUSED, *SPECIAL_KEYS}:
        return False
    if keys[0] not in groups | option_names(command):  # such as a group of the user's own
        return False
    texts = [value for value in values if isinstance(value, str)]
    if override.key_or_group in {*groups, "trained_as"}:  # names of yaml files
        return all(map(YAML_NAME.fullmatch, texts))
    target = WANDB_LOGGER if keys[:2] == ["logger", "wandb"] else ""
    return keys[0] not in NAMED or not could_leave_folder(keys[-1], texts, target)


def _is_plain_of_hydra(option: str) -> bool:
    """Whether an option of Hydra may be repeated, and sets plain names or numbers."""
    parsed = _parsed(option)
    if parsed is None:
        return False
    override, values = parsed
    if override.package is not None or override.key_or_group not in HYDRA_OPTIONS:
        return False
    if override.key_or_group == "hydra/launcher":
        return LAUNCHERS.issuperset(values)
    return all(isinstance(value, int) or PLAIN_NAME.fullmatch(str(value)) for value in values)


def _parsed(option: str) -> tuple[Override, list[object]] | None:
    """An option as Hydra reads it, and the numbers and texts in its value.

    None for a flag, for an option that Hydra could interpolate, and for a value that is not plain.
    """
    if "${" in option or "\\" in option:  # a backslash can escape an interpolation
        return None
    try:
        override = OverridesParser.create().parse_override(option)
        return override, list(_leaves(override.value()))
    except (HydraException, ValueError):
        return None


def _leaves(value: object) -> Iterator[object]:
    """The numbers and texts in the value of an option.

    Raises:
        ValueError: for a key of a mapping that is special, and for a kind of value that is not known here.
    """
    if isinstance(value, ChoiceSweep | list):
        for entry in value.list if isinstance(value, ChoiceSweep) else value:
            yield from _leaves(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not PLAIN_NAME.fullmatch(str(key)) or str(key) in REFUSED | SPECIAL_KEYS:
                raise ValueError(key)
            yield from _leaves(entry)
    elif isinstance(value, Glob):
        yield from (*value.include, *value.exclude)
    elif isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, RangeSweep) and len(list(islice(value.range(), MAX_JOBS + 1))) > MAX_JOBS:
        raise ValueError(value)
    elif isinstance(value, str | int | float | RangeSweep | IntervalSweep | None):
        yield value
    else:
        raise ValueError(value)


def _read(path: Path) -> tuple[str, list[str], list[str]]:
    """The command of a sweep, its options and those of Hydra.

    Raises:
        ValueError: for a file that is not of a sweep.
    """
    content = read_yaml(path)
    try:
        hydra = content["hydra"]
        task, before = ([str(option) for option in hydra["overrides"][kind]] for kind in ("task", "hydra"))
        return str(hydra["job"]["config_name"]), task, before
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the file of a sweep: it lacks {error}") from error
