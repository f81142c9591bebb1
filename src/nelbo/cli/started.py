"""The command that the user started: ranks run it, and hints show it.

It is stored in the environment, which the workers of a launcher inherit. ``hydra.help`` has it as
``${command:}``.
"""

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

VARIABLE = "NELBO_COMMAND"


@dataclass(frozen=True)
class StartedCommand:
    """A command without its options.

    Attributes:
        words: arguments of Python that start it: ``/home/me/train.py``, or ``-m nelbo train``.
        shown: as it is typed: ``python train.py``, or ``nelbo train --config-dir conf``.
    """

    words: list[str]
    shown: str


def store_started_command(subcommand: str | None, folders: str) -> None:
    """Store the running command.

    Args:
        subcommand: of ``nelbo``; None for a script.
        folders: flags and options that name configuration folders, as typed.
    """
    program = Path(sys.argv[0])
    name = [] if subcommand is None else [subcommand]
    if program.name == "__main__.py" and subcommand is not None:
        words, typed = ["-m", "nelbo"], "python -m nelbo"
    else:
        words = [str(program.absolute())]
        typed = f"python {shlex.quote(sys.argv[0])}" if subcommand is None else program.name
    command = StartedCommand([*words, *name], " ".join([typed, *name, *([folders] if folders else [])]))
    os.environ[VARIABLE] = json.dumps(asdict(command))


def started_command() -> StartedCommand:
    """The command whose job is running, also in a process of a launcher."""
    if VARIABLE in os.environ:
        return StartedCommand(**json.loads(os.environ[VARIABLE]))
    name = str(HydraConfig.get().job.config_name)
    return StartedCommand(["-m", "nelbo", name], f"nelbo {name}")


OmegaConf.register_new_resolver("command", lambda: started_command().shown)
