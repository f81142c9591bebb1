"""Checkpoint files: written so that whatever happens leaves a whole one, and checked before they are used."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from nelbo.atomic_file import sync


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's own, but that it writes straight to the file, and until the disk has it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the file, and its folder if there is none."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # when a write fails, torch still tries to end the file, and tells of that failure alone
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())


def write_checkpoint(trainer: Trainer, path: Path, previous: Path | None = None) -> None:
    """Save the state of training to ``path``: beside its place first, then moved there. On all ranks.

    Args:
        trainer: of the run.
        path: of the file.
        previous: where the file goes that was there before; None to let it go.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    unfinished = path.with_suffix(".tmp")
    try:
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            if previous is not None and path.exists():
                path.replace(previous)
            unfinished.replace(path)
            sync(path.parent)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path} ({error}); the checkpoint before it is kept") from error
        raise


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written, by the checksums in it. Reads all of the file."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):  # what broken bytes lead it to
        return False
