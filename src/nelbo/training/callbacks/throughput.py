"""``throughput/images_per_second``: training speed without validation."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from nelbo.data.batch import Batch
from nelbo.training.callbacks.due import Due


class Throughput(Callback):
    """Log training examples per second of all ranks together, over the steps since the last log."""

    def __init__(self) -> None:
        self._due = Due(1)
        self._examples = 0
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._due = Due(trainer.log_every_n_steps, trainer.global_step)  # pyright: ignore
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock: validation does not count."""
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch; log every ``log_every_n_steps`` steps."""
        self._examples += len(batch.x0) * trainer.world_size
        if self._due(trainer):
            elapsed = time.perf_counter() - self._started
            pl_module.log("throughput/images_per_second", self._examples / elapsed)
            self._restart()

    def _restart(self) -> None:
        self._examples = 0
        self._started = time.perf_counter()
