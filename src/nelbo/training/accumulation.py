"""Gradient accumulation over windows of equally many batches, also where an epoch ends.

Lightning divides the loss of every batch by ``accumulate_grad_batches`` and steps at the end of an epoch
however few batches there were, so the last step of an epoch would get a fraction of its gradient. Here a
window continues in the next epoch: each optimizer step has the mean over ``accumulate_grad_batches`` batches.
"""

from collections.abc import Callable

from lightning import Trainer
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.optim import Optimizer


class AccumulatingLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, with windows that do not end with it.

    Args:
        trainer: of the run. Its loop is replaced.

    Attributes:
        first_batch: number of batches at the beginning of this part of the run, which is that of a window.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self.automatic_optimization = _Optimization(trainer)
        self.first_batch = 0

    @property
    def begins_window(self) -> bool:
        """Whether the current batch is the first one of a window."""
        return (self.total_batch_idx - self.first_batch) % self.trainer.accumulate_grad_batches == 0

    def _should_accumulate(self) -> bool:
        batches = self.batch_progress.total.ready - self.first_batch
        return batches % self.trainer.accumulate_grad_batches != 0


class _Optimization(_AutomaticOptimization):
    def _make_zero_grad_fn(self, batch_idx: int, optimizer: Optimizer) -> Callable[[], None] | None:
        loop = self.trainer.fit_loop.epoch_loop
        assert isinstance(loop, AccumulatingLoop)
        return super()._make_zero_grad_fn(0 if loop.begins_window else 1, optimizer)
