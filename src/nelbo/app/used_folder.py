"""Folders that hold what another command left behind."""

import os
from collections.abc import Sequence
from pathlib import Path

from nelbo.app.quoting import as_typed, value_of

# what a command must not find where it writes; samples are added to samples
OF_OTHERS = {
    "train": ("checkpoints", "bound.parquet"),
    "evaluate": ("evaluation.json", "bound.parquet", "checkpoints"),
    "sample": ("checkpoints", "bound.parquet", "evaluation.json"),
}


def refuse_used_folder(run_dir: Path, command: str) -> None:
    """Keep a command from mixing its files with those of another.

    Raises:
        ValueError: when the folder holds a run.
    """
    there = (run_dir / name for name in OF_OTHERS[command])
    found = next((path.name for path in there if (path.is_file() if path.suffix else path.is_dir())), None)
    if found is None:
        return
    if command == "train":
        go_on = f", or go on with it: {as_typed('resume', str(run_dir))}"
        raise ValueError(f"{run_dir} already holds a run: choose another hydra.run.dir{go_on}")
    raise ValueError(f"{run_dir} already holds {found}: choose another hydra.run.dir")


def refuse_before_hydra_writes(arguments: Sequence[str], command: str) -> None:
    """The same for the folder that a command line names: Hydra writes into it before any job begins.

    Raises:
        ValueError: when the folder holds a run.
    """
    is_sweep = any(argument in ("-m", "--multirun") for argument in arguments)
    if is_sweep or value_of(arguments, "resume") or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    folder = value_of(arguments, "hydra.run.dir")
    if folder is not None:
        refuse_used_folder(Path(folder), command)
