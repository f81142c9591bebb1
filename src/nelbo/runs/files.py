"""Reading single files of a run: one may be missing, but one that is there must be readable."""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nelbo.atomic_file import DamagedFileError

T = TypeVar("T")
# Files that only libraries read: W&B sends its key to the server that its settings name, and Lightning loads
# such a checkpoint in a job of Slurm.
OF_LIBRARIES = ("wandb/settings", ".wandb/settings", "hpc_ckpt_*")
WANDB_LOG = "wandb/*/logs/debug-core.log"  # W&B links it to its cache; nothing here opens it


class RunFolderError(ValueError):
    """A folder that is no run, or a file of a run that cannot be read; the message names it."""


def check_contained(folder: Path, names: Collection[str] = ()) -> None:
    """Check that all files of a run or sweep folder are in it, so that none outside is read or written.

    The folder itself may be a link, and links inside of the folder may point to other files in it.

    Args:
        folder: of a run, or of a sweep with its runs.
        names: of files and folders in it, where only these are used.

    Raises:
        RunFolderError: for a link to the outside, a file that is neither regular nor a folder, or one that
            only a library reads.
    """
    root = Path(os.path.realpath(folder))
    waiting = [root / name for name in names] if names else [root]
    while waiting:
        path = waiting.pop()
        if any(path.match(pattern) for pattern in OF_LIBRARIES):
            raise RunFolderError(f"{path} changes what a library does, and no run writes it: remove it")
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(root) and not path.match(WANDB_LOG):
                raise RunFolderError(
                    f"{path} is a link to {target}, outside of {folder}: move what it links to into the "
                    "folder, or mount it there (mount --bind); only the folder itself may be a link"
                )
        elif path.is_dir():
            with suppress(FileNotFoundError):  # other processes may write
                waiting += path.iterdir()
        elif path.exists() and not path.is_file():
            raise RunFolderError(f"{path} is not a regular file: remove it")


def read_if_there(path: Path, how: Callable[[Path], T]) -> T | None:
    """What ``how`` makes of the file; None where it is missing.

    Raises:
        RunFolderError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        return None
    try:
        return how(path)
    except DamagedFileError as error:
        raise RunFolderError(str(error)) from error
    except Exception as error:  # damaged content can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFolderError(f"{path}: cannot be read ({reason})") from error
