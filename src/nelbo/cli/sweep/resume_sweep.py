"""``resume=FOLDER`` for the folder of a sweep: the command line that continues it."""

import re
from collections.abc import Sequence
from pathlib import Path

from nelbo.atomic_file import read_yaml
from nelbo.cli.overrides import quoted, split_command_line
from nelbo.cli.sweep.folder import FILE_NAME
from nelbo.compose.stored_config import CODE_ARGUMENTS, excerpt

WORD = "resume="
NOT_REPEATED = ("hydra.sweep.dir=", "hydra.mode=")
# Options of Hydra that a sweep's file may repeat. Others can start programs or read other folders, such as
# hydra.job.env_set and hydra.searchpath.
REPEATED = re.compile(
    r"hydra/(launcher|sweeper)|hydra\.(sweep\.subdir|launcher\.n_jobs)|"
    r"hydra\.sweeper\.(n_trials|n_jobs|study_name|direction|seed|max_batch_size|params(\..+)?)"
)
OPTION = re.compile(r"[+~]{0,2}\w[\w./@:-]*(=.*)?", re.DOTALL)  # and no flag, such as --experimental-rerun
# An interpolation, or what escapes one; a special key such as _target_ (also inside of a value); an argument
# that names code; a yaml file outside of conf/, or a folder outside of the sweep's
CODE = "|".join(sorted({"trust", *(name for names in CODE_ARGUMENTS.values() for name in names)}))
SPECIAL = re.compile(
    rf"\$\{{|\\|(^|\W)_[a-z]+_(\W|$)|(^|\W)({CODE})['\"]?\s*[:=]|\.\./|^\W*hydra\.sweep\.subdir=['\"]?/"
)


def with_the_sweep_to_resume(arguments: Sequence[str], command: str) -> list[str]:
    """The same command line, with the options of the sweep that it continues, if there is one.

    The file of a sweep is data: an option in it that could interpolate or name a class is refused.

    Args:
        arguments: a command line.
        command: ``train``, ``evaluate`` or ``sample``.

    Raises:
        ValueError: for a sweep of another command, options that would make other jobs of it, or a file with
            options that are refused.
    """
    named = [argument for argument in arguments if argument.startswith(WORD)]
    folder = Path(named[-1].removeprefix(WORD)) if named else None
    if folder is None or not (folder / FILE_NAME).is_file():
        return list(arguments)
    flags, options = split_command_line(arguments)
    flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
    rest = [option for option in options if option not in named]
    other = [option for option in rest if not option.lstrip("+~").startswith(("hydra.", "hydra/", "trust="))]
    if other:
        raise ValueError(
            f"{other[0]}: a sweep is resumed as it was started; only hydra options and trust= can be given"
        )
    kept_command, task, hydra = _read(folder / FILE_NAME)
    if kept_command != command:
        raise ValueError(f"{folder} is a sweep of {kept_command}.py: resume it there")
    given = {_name(argument) for argument in rest}
    replaced = NOT_REPEATED
    if "hydra/launcher" in given:
        replaced += ("hydra/launcher=", "hydra.launcher.", "+hydra.launcher.", "++hydra.launcher.")
    before = [option for option in hydra if not option.startswith(replaced) and _name(option) not in given]
    for option in (*task, *before):
        if option in rest:  # this command has it too
            continue
        name = _name(option)
        is_hydras = option in before or name.startswith("hydra")
        is_plain = OPTION.fullmatch(option) and not SPECIAL.search(option)
        if not is_plain or (is_hydras and not REPEATED.fullmatch(name)):
            remedy = (
                f"add {excerpt(name)}=... to this command"
                if option in before or name == "trust"
                else f"repeat the command that started the sweep, with hydra.sweep.dir={folder}"
            )
            raise ValueError(
                f"{folder / FILE_NAME}: the option {excerpt(option)} is refused; to use it, {remedy}"
            )
    rest = [option for option in rest if option not in task]
    return ["--multirun", *flags, *task, *before, f"hydra.sweep.dir={quoted(str(folder))}", *rest]


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


def _name(option: str) -> str:
    return option.partition("=")[0].lstrip("+~")
