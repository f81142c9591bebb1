"""``checkpoints/last.ckpt``: where training stands."""

import errno
import sys
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from nelbo.training.callbacks.checkpoint_file import write_checkpoint
from nelbo.training.callbacks.due import Due
from nelbo.training.errors import NonFiniteLossError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class LastCheckpoint(Checkpoint):
    """Save every ``every_n_steps`` steps, at the end, and when training is interrupted.

    Args:
        folder: where ``last.ckpt`` goes.
        every_n_steps: optimizer steps between two saves.

    Raises:
        ValueError: when ``every_n_steps`` is below 1.
    """

    def __init__(self, folder: str, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ValueError(f"checkpoint_every={every_n_steps} must be at least 1 step")
        self.path = Path(folder) / "last.ckpt"
        self._due = Due(every_n_steps)
        self._saved_at = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time."""
        if self._due(trainer):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished model."""
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what an interruption would lose.

        Not after a loss that was not finite, for the weights are spoilt; not in the middle of a
        validation, when the weights in place are the averaged ones; not when nothing was trained, or when
        the disk is what failed.
        """
        disk_failed = isinstance(exception, OSError) and exception.errno in DISK_ERRORS
        spoilt = disk_failed or isinstance(exception, NonFiniteLossError)
        if trainer.training and trainer.global_step > 0 and not spoilt and trainer.world_size == 1:
            self.save(trainer)
            print(f"stopped at step {trainer.global_step}, saved in {self.path}", file=sys.stderr)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, unless this step's is there."""
        if trainer.global_step == self._saved_at:
            return
        write_checkpoint(trainer, self.path)
        self._saved_at = trainer.global_step
