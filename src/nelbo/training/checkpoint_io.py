"""Checkpoint files of a run: replaced atomically, and verified when read."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from nelbo import torch_file
from nelbo.atomic_file import replacing, sync


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
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path)  # rank 0 writes the file, at its own path
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False) as unfinished:
            trainer.save_checkpoint(unfinished)  # which waits for the disk
            if previous is not None and path.exists():
                path.replace(previous)
        sync(path.parent)
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(f"cannot write {path} ({reason}); the checkpoint before it is kept") from error
