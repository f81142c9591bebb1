"""Checkpoint files of a run: replaced atomically, and verified when read."""

import os
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from nelbo import torch_file
from nelbo.atomic_file import sync


class DurableCheckpointIO(TorchCheckpointIO):
    """Checkpoint files with a checksum, synchronised to disk before ``save_checkpoint`` returns."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the file; create its folder if it is missing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch_file.save(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The verified content of the file: tensors, on the CPU, and plain values.

        Raises:
            DamagedFileError: naming the file, when it is damaged.
        """
        return torch_file.load(Path(path))


def write_checkpoint(trainer: Trainer, path: Path, previous: Path | None = None) -> None:
    """Save the state of training to a temporary file and move it to ``path``. Call it on all ranks.

    Args:
        trainer: of the run.
        path: of the file.
        previous: new path of the file that ``path`` held before; None to delete it.

    Raises:
        OSError: if the file cannot be written; the message names it.
    """
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp")  # rank 0 writes it
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
