"""Writing a checkpoint so that a crash leaves the one before it."""

from pathlib import Path

from lightning import Trainer


def write_checkpoint(trainer: Trainer, path: Path) -> None:
    """Save the state of training to ``path``: beside its place first, then moved there. On all ranks."""
    unfinished = path.with_suffix(".tmp")
    trainer.save_checkpoint(unfinished)
    if trainer.is_global_zero:
        unfinished.replace(path)
