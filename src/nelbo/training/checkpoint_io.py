"""Checkpoint files of a run: written so that a whole one exists at any time, and verified when read."""

import os
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from nelbo import torch_file
from nelbo.atomic_file import sync


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, with a checksum, and on the disk when ``save_checkpoint`` returns."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the file, and its folder if there is none."""
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
    """Save the state of training to ``path``: beside its place first, then moved there. On all ranks.

    Args:
        trainer: of the run.
        path: of the file.
        previous: where the file goes that was there before; None to let it go.

    Raises:
        OSError: naming the file, if it cannot be written.
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
