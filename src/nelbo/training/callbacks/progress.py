"""A progress bar over optimizer steps, with the loss and the bound of training."""

import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from nelbo.data.batch import Batch
from nelbo.option_types import PositiveInt

SECONDS = 60.0  # between two lines without a terminal


class StepProgress(ProgressBar):
    """One bar for the whole training, and one for each validation and test while it runs.

    Without a terminal: a line per validation, and a line per minute with loss, bound and time left.

    Args:
        refresh_every: optimizer steps between two updates.
    """

    def __init__(self, refresh_every: PositiveInt = 10) -> None:
        super().__init__()
        self.refresh_every = refresh_every
        self._enabled = True
        self._console = Console()
        self._progress = self._new_bar()
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._printed = time.monotonic()  # time of the last line
        self._started = (0, 0.0)  # step and time at the start of training

    def disable(self) -> None:
        """Called by Lightning on ranks other than 0."""
        self._enabled = False

    def enable(self) -> None:
        """Called by Lightning on rank 0."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._started = (trainer.global_step, time.monotonic())
        self._printed = time.monotonic()
        if self._shown:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._training = self._progress.add_task(
                "training", total=total, completed=trainer.global_step, metrics=""
            )
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Update the bar every ``refresh_every`` steps."""
        if self._shown and trainer.global_step % self.refresh_every == 0:
            self._update(trainer)
        elif self._line_is_due():
            self._print(f"step {trainer.global_step:>7}  {self._metrics(trainer)}{self._time_left(trainer)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a bar for the validation."""
        self._start_evaluation(trainer, "validation", trainer.num_val_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the bar of the validation."""
        self._advance_evaluation("validation", batch_idx + 1, trainer.num_val_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line, if there is no terminal."""
        self._end_evaluation(trainer)
        if self._enabled and trainer.state.fn == "fit" and not self._console.is_terminal:
            self._print(f"step {trainer.global_step:>7}  {self._metrics(trainer)}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a bar for the test."""
        self._start_evaluation(trainer, "test", trainer.num_test_batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the bar of the test."""
        self._advance_evaluation("test", batch_idx + 1, trainer.num_test_batches)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar of the test."""
        self._end_evaluation(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the bar."""
        if self._shown:
            self._update(trainer)
            self._progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the bar, so that the error message has its own line."""
        if self._shown:
            self._progress.stop()

    @property
    def _shown(self) -> bool:
        return self._enabled and self._console.is_terminal

    def _new_bar(self, transient: bool = False) -> Progress:
        return Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
            transient=transient,
        )

    def _update(self, trainer: Trainer) -> None:
        assert self._training is not None
        self._progress.update(self._training, completed=trainer.global_step, metrics=self._metrics(trainer))

    def _start_evaluation(self, trainer: Trainer, name: str, batches: list[int | float]) -> None:
        if not self._shown:
            return
        if trainer.state.fn != "fit":  # the bar of the training has ended
            self._progress = self._new_bar(transient=True)
            self._progress.start()
        self._evaluation = self._progress.add_task(name, total=sum(batches), metrics="")

    def _advance_evaluation(self, name: str, done: int, batches: list[int | float]) -> None:
        if self._shown and self._evaluation is not None:
            self._progress.update(self._evaluation, completed=done)
        elif self._line_is_due():
            self._print(f"{name}: {done / sum(batches):.0%}")

    def _end_evaluation(self, trainer: Trainer) -> None:
        if self._shown and self._evaluation is not None:
            self._progress.remove_task(self._evaluation)
            self._evaluation = None
            if trainer.state.fn != "fit":
                self._progress.stop()

    def _line_is_due(self) -> bool:
        without_terminal = self._enabled and not self._console.is_terminal
        return without_terminal and time.monotonic() - self._printed >= SECONDS

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        self._console.print(line, soft_wrap=True)

    def _time_left(self, trainer: Trainer) -> str:
        """Time to the last step at the speed of this process, validations included."""
        first, started = self._started
        done = trainer.global_step - first
        if done == 0 or trainer.max_steps < 0:
            return ""
        seconds = (time.monotonic() - started) / done * (trainer.max_steps - trainer.global_step)
        return f"  {timedelta(seconds=round(seconds))} left of {trainer.max_steps} steps"

    def _metrics(self, trainer: Trainer) -> str:
        values = trainer.progress_bar_metrics
        return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
