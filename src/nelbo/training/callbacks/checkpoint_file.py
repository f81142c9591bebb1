"""Writing a checkpoint so that a crash leaves the one before it."""

from pathlib import Path

from lightning import Trainer


def write_checkpoint(trainer: Trainer, path: Path) -> None:
    """Save the state of training to ``path``: beside its place first, then moved there. On all ranks.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    unfinished = path.with_suffix(".tmp")
    try:
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"cannot write {path} ({error}); the checkpoint before it is kept") from error
