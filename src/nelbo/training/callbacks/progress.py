"""A progress bar over optimizer steps, with the loss and the bound of training."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nelbo.data.batch import Batch
from nelbo.option_types import PositiveInt


class StepProgress(ProgressBar):
    """One bar for the whole training; without a terminal, one line per validation.

    Args:
        refresh_every: optimizer steps between two updates.
    """

    def __init__(self, refresh_every: PositiveInt = 10) -> None:
        super().__init__()
        self.refresh_every = refresh_every
        self._enabled = True
        self._console = Console()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
        )

    def disable(self) -> None:
        """Called by Lightning on ranks other than 0."""
        self._enabled = False

    def enable(self) -> None:
        """Called by Lightning on rank 0."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if self._shown:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._progress.add_task("training", total=total, completed=trainer.global_step, metrics="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Update the bar every ``refresh_every`` steps."""
        if self._shown and trainer.global_step % self.refresh_every == 0:
            self._update(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line, if there is no terminal."""
        if self._enabled and trainer.state.fn == "fit" and not self._console.is_terminal:
            self._console.print(f"step {trainer.global_step:>7}  {self._metrics(trainer)}", soft_wrap=True)

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

    def _update(self, trainer: Trainer) -> None:
        task = self._progress.task_ids[-1]
        self._progress.update(task, completed=trainer.global_step, metrics=self._metrics(trainer))

    def _metrics(self, trainer: Trainer) -> str:
        values = trainer.progress_bar_metrics
        return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
