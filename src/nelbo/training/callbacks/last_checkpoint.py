"""``checkpoints/last.ckpt``: where training stands, and ``previous.ckpt``: where it stood before."""

import sys
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from nelbo.option_types import PositiveInt
from nelbo.runs import history
from nelbo.runs.paths import LAST, PREVIOUS
from nelbo.training import loop_state
from nelbo.training.checkpoint_io import write_checkpoint
from nelbo.training.errors import Interrupted, NonFiniteLossError


class LastCheckpoint(Checkpoint):
    """Save every ``every_n_steps`` steps, at the end, and when training is interrupted.

    It is saved when the next batch is about to begin: all that belongs to the step before is done by then,
    its validation and what it logged included. So a resumed run repeats and misses nothing.

    Args:
        folder: where ``last.ckpt`` goes.
        every_n_steps: optimizer steps between two saves.

    Raises:
        ValueError: when ``every_n_steps`` is below 1.
    """

    def __init__(self, folder: str, every_n_steps: PositiveInt = 500) -> None:
        if every_n_steps < 1:
            raise ValueError(f"checkpoint_every={every_n_steps} must be at least 1 step")
        self.path = Path(folder) / Path(LAST).name
        self.every_n_steps = every_n_steps
        self._saved_at = 0
        self._is_between_steps = False
        self._is_saving = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a checkpoint where it was, if there was one."""
        self._saved_at = trainer.global_step
        loop_state.restore(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time."""
        if not loop_state.begins_window(trainer):
            return  # gradients have been added up, which no checkpoint holds
        self._is_between_steps = True
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here to the next batch the state belongs partly to one step and partly to the next."""
        self._is_between_steps = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished model."""
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save after an interruption, if the state is one that a run can be resumed from exactly.

        Several processes save together, which they can do only if all of them were interrupted at one step.
        """
        if isinstance(exception, NonFiniteLossError):
            return  # what there is, is not worth keeping
        is_between = isinstance(exception, Interrupted) or (
            self._is_between_steps and trainer.world_size == 1
        )
        if trainer.training and trainer.global_step > 0 and is_between:
            self.save(trainer)
            if not isinstance(exception, Interrupted):
                print(f"stopped at step {trainer.global_step}, saved in {self.path}", file=sys.stderr)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, unless this step's is there."""
        if trainer.global_step == self._saved_at:
            return
        self._is_saving = True
        try:
            write_checkpoint(trainer, self.path, self.path.with_name(Path(PREVIOUS).name))
        finally:
            self._is_saving = False
        self._saved_at = trainer.global_step

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the position in the data, and what the run's files contain.

        Only in ``last.ckpt``: other checkpoints are saved when a step is not finished.
        """
        loop_state.save(trainer, checkpoint)
        if self._is_saving and trainer.is_global_zero:
            checkpoint[history.HISTORY] = history.describe(self.path.parents[1])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Normalize the position in the data, if training continues."""
        if trainer.max_steps < 0 or checkpoint["global_step"] < trainer.max_steps:
            loop_state.normalize(checkpoint)
