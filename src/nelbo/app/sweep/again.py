"""``resume=FOLDER`` for the folder of a sweep: the command line that goes on with it."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from nelbo.app.quoting import quoted, split_command_line
from nelbo.app.sweep.folder import FILE_NAME

WORD = "resume="
NOT_REPEATED = ("hydra.sweep.dir=", "hydra.mode=")


def with_the_sweep_to_resume(arguments: Sequence[str], command: str) -> list[str]:
    """The same command line, with the sweep that it goes on with written out, if there is one.

    Args:
        arguments: a command line.
        command: ``train``, ``evaluate`` or ``sample``.

    Raises:
        ValueError: for a sweep of another command, or options that would make other jobs of it.
    """
    named = [argument for argument in arguments if argument.startswith(WORD)]
    folder = Path(named[-1].removeprefix(WORD)) if named else None
    if folder is None or not (folder / FILE_NAME).is_file():
        return list(arguments)
    flags, options = split_command_line(arguments)
    flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
    rest = [option for option in options if option not in named]
    other = [option for option in rest if not option.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if other:
        raise ValueError(f"{other[0]}: a sweep goes on as it was begun; only hydra options can be changed")
    hydra = OmegaConf.load(folder / FILE_NAME).hydra
    if hydra.job.config_name != command:
        raise ValueError(f"{folder} is a sweep of {hydra.job.config_name}.py: resume it there")
    replaced = NOT_REPEATED
    if any(option.startswith("hydra/launcher=") for option in rest):
        replaced += ("hydra/launcher=", "hydra.launcher.", "+hydra.launcher.", "++hydra.launcher.")
    before = [override for override in hydra.overrides.hydra if not override.startswith(replaced)]
    return [
        "--multirun",
        *flags,
        *hydra.overrides.task,
        *before,
        f"hydra.sweep.dir={quoted(str(folder))}",
        *rest,
    ]
