"""The folder that a command writes into: claimed before Hydra or anything else writes into it."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from nelbo.cli.launch import is_first_process
from nelbo.cli.overrides import as_typed, option_name
from nelbo.runs.files import check_contained
from nelbo.runs.folder_lock import check_not_in_use, locked

# Files that mark the folder of another command. sample.py adds to a folder of samples.
FILES_OF_OTHER_COMMANDS = {
    "train": ("checkpoints", "bound.parquet"),
    "evaluate": ("evaluation.json", "bound.parquet", "checkpoints"),
    "sample": ("checkpoints", "bound.parquet", "evaluation.json"),
}

claimed_folders = ExitStack()  # locks of this process, held until its command has ended


class ClaimError(SystemExit):
    """A folder cannot be claimed; the cause says why. Hydra turns an ``Exception`` here into a warning."""


class ClaimFolder(Callback):
    """Claim the folder of a run or of a sweep before Hydra creates it.

    A folder with a default name gets a suffix if it exists, so that commands that start in the same second
    get different folders. A folder that the command line names must not hold a run.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra when the configuration of a run is composed."""
        _claim(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra when the configuration of a sweep is composed."""
        _claim(config, "hydra.sweep.dir")


def check_unused_folder(run_dir: Path, command: str) -> None:
    """Check that no other command has written into a folder.

    Raises:
        ValueError: when the folder holds a run.
    """
    found = next((name for name in FILES_OF_OTHER_COMMANDS[command] if (run_dir / name).exists()), None)
    if found is None:
        return
    if command == "train":
        raise ValueError(
            f"{run_dir} already holds a run: choose another hydra.run.dir, or resume it: "
            f"{as_typed('resume', str(run_dir))}"
        )
    raise ValueError(f"{run_dir} already holds {found}: choose another hydra.run.dir")


def _claim(config: DictConfig, option: str) -> None:
    try:
        folder = _named_folder(config, option)
        if not is_first_process():
            return
        if option in set(map(option_name, config.hydra.overrides.hydra)):
            _claim_chosen(folder, config, option)
        else:
            _claim_new(folder, config, option)
    except Exception as error:
        raise ClaimError from error


def _named_folder(config: DictConfig, option: str) -> Path:
    """The folder of ``hydra.run.dir`` or ``hydra.sweep.dir``.

    Raises:
        ValueError: for an empty value, or one that OmegaConf would interpolate again.
    """
    run_dir = OmegaConf.to_container(config, resolve=False)["run_dir"]  # pyright: ignore
    if run_dir != "${hydra:runtime.output_dir}":
        raise ValueError(f"run_dir={run_dir}: a run has one folder, which is set by hydra.run.dir")
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # for interpolations such as ${hydra:job.name}
    try:
        name = OmegaConf.select(config, option)
    finally:
        HydraConfig.instance().cfg = before
    if not name:
        raise ValueError(f"{option}=: expected the name of a folder")
    if "${" in str(Path(name).absolute()):
        raise ValueError(f"{option}={name}: the name of a folder must not contain ${{")
    return Path(name)


def _claim_chosen(folder: Path, config: DictConfig, option: str) -> None:
    """Lock a folder that is chosen on the command line.

    Raises:
        ValueError: when it is in use, holds another run, or has links to files outside of it.
    """
    command = str(config.hydra.job.config_name)
    is_new_run = option == "hydra.run.dir" and not config.get("resume")
    if not (is_new_run and command == "train"):
        check_contained(folder)  # files that are there are read or replaced
    check_not_in_use(folder)
    if is_new_run:
        check_unused_folder(folder, command)
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        claimed_folders.callback(_remove_if_empty, folder)
    claimed_folders.enter_context(locked(folder))


def _claim_new(folder: Path, config: DictConfig, option: str) -> None:
    """Create and lock a folder that is not there, by the given name or with a number after it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name in _numbered(folder):
        try:
            name.mkdir()
        except FileExistsError:
            continue
        break
    with read_write(config.hydra):
        OmegaConf.update(config, option, str(name))
    claimed_folders.callback(_remove_if_empty, name)
    claimed_folders.enter_context(locked(name))


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in count(1):
        yield folder.with_name(f"{folder.name}-{number}")


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
