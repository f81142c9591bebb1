"""The training loops of Lightning, with two changes.

Gradient accumulation windows continue across epochs. A resumed run begins with the validation that was due at
its checkpoint, also after the last step.

Lightning divides every loss by ``accumulate_grad_batches`` and also steps at the end of an epoch, so a window
that the epoch cuts short would get a fraction of its gradient. Here the window continues in the next epoch,
and every optimizer step uses the mean over exactly ``accumulate_grad_batches`` batches.
"""

from collections.abc import Callable

from lightning import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.optim import Optimizer


class AccumulatingLoop(_TrainingEpochLoop):
    """Lightning's training epoch loop with accumulation windows that continue across epochs.

    Args:
        trainer: the trainer of the run.

    Attributes:
        first_batch: batches trained on before this process started; a window begins there.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self.automatic_optimization = _Optimization(trainer)
        self.first_batch = 0

    @property
    def begins_window(self) -> bool:
        """Whether the current batch is the first one of a window."""
        return (self.total_batch_idx - self.first_batch) % self.trainer.accumulate_grad_batches == 0

    @property
    def ends_window(self) -> bool:
        """Whether the last batch was the last one of a window."""
        return not self._should_accumulate()

    @property
    def validation_due(self) -> bool:
        """Whether the checkpoint that the run resumes from was written at the start of a validation."""
        progress = self.val_loop.batch_progress.total
        return self.restarting and progress.ready > progress.completed

    def _should_accumulate(self) -> bool:
        batches = self.batch_progress.total.ready - self.first_batch
        return batches % self.trainer.accumulate_grad_batches != 0


class FitLoop(_FitLoop):
    """Lightning's fit loop, which is not done while a validation is due.

    Args:
        trainer: the trainer of the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, trainer.min_epochs, trainer.max_epochs)
        self.epoch_loop: AccumulatingLoop = AccumulatingLoop(trainer)

    @property
    def done(self) -> bool:
        """Whether the last step is done, and the validation after it."""
        return not self.epoch_loop.validation_due and super().done


class _Optimization(_AutomaticOptimization):
    def _make_zero_grad_fn(self, batch_idx: int, optimizer: Optimizer) -> Callable[[], None] | None:
        loop = self.trainer.fit_loop.epoch_loop
        assert isinstance(loop, AccumulatingLoop)
        return super()._make_zero_grad_fn(0 if loop.begins_window else 1, optimizer)
