"""``checkpoints/last.ckpt``, the state to resume from, and ``previous.ckpt``, the one before it."""

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

    The checkpoint is written just before the next batch. At this point the previous step is complete, its
    validation and logging included, so a resumed run neither repeats nor misses anything. If the step is
    followed by a validation, which may take long, it is also written before it; a run that is stopped in the
    validation resumes at its start.

    Args:
        folder: of ``last.ckpt``.
        every_n_steps: optimizer steps between two saves.
    """

    def __init__(self, folder: str, every_n_steps: PositiveInt = 500) -> None:
        self.path = Path(folder) / Path(LAST).name
        self.every_n_steps = every_n_steps
        self._saved_at = 0, False  # step, and whether a validation is due
        self._validation_due = False
        self._is_between_steps = False
        self._is_saving = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the counters of Lightning after a resume."""
        loop_state.restore(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if a multiple of ``every_n_steps`` is reached."""
        if not loop_state.begins_window(trainer):
            return  # accumulated gradients are not part of a checkpoint
        self._is_between_steps = True
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a multiple of ``every_n_steps`` is reached."""
        is_due = trainer.state.fn == "fit" and trainer.global_step % self.every_n_steps == 0
        if is_due and loop_state.ends_window(trainer):
            self._validation_due = True
            self.save(trainer)
            self._validation_due = False

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here to the next batch the state is in the middle of a step."""
        self._is_between_steps = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished model."""
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save after an interruption, if a resume from this state is exact.

        Saving is collective: with several ranks, all of them must be interrupted at the same step.
        """
        if isinstance(exception, NonFiniteLossError):
            return  # keep the last good checkpoint
        is_between = isinstance(exception, Interrupted) or (
            self._is_between_steps and trainer.world_size == 1
        )
        if trainer.training and trainer.global_step > 0 and is_between:
            self.save(trainer)
            if not isinstance(exception, Interrupted):
                print(f"stopped at step {trainer.global_step}, saved in {self.path}", file=sys.stderr)
        if isinstance(exception, Interrupted):
            exception.saved_step, _ = self._saved_at

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, unless it was already written at this point."""
        point = trainer.global_step, self._validation_due
        if point == self._saved_at:
            return
        self._is_saving = True
        try:
            write_checkpoint(trainer, self.path, self.path.with_name(Path(PREVIOUS).name))
        finally:
            self._is_saving = False
        self._saved_at = point

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the position in the data and, to ``last.ckpt`` only, the state of the run's files.

        Other checkpoints are saved in the middle of a step.
        """
        loop_state.save(trainer, checkpoint, self._validation_due)
        if self._is_saving and trainer.is_global_zero:
            checkpoint[history.HISTORY] = history.describe(self.path.parents[1], trainer.loggers)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Normalize the loop counters, unless training is complete."""
        step, validation_due = checkpoint["global_step"], checkpoint[loop_state.VALIDATION_DUE]
        self._saved_at = step, validation_due
        if validation_due or trainer.max_steps < 0 or step < trainer.max_steps:
            loop_state.normalize(checkpoint)
