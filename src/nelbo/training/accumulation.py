"""Gradient accumulation windows that continue across epochs.

Lightning divides every loss by ``accumulate_grad_batches`` and also steps at the end of an epoch, so a window
that the epoch cuts short would get a fraction of its gradient. Here the window continues in the next epoch,
and every optimizer step uses the mean over exactly ``accumulate_grad_batches`` batches.
"""

from collections.abc import Callable

from lightning import Trainer
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

    def _should_accumulate(self) -> bool:
        batches = self.batch_progress.total.ready - self.first_batch
        return batches % self.trainer.accumulate_grad_batches != 0


class _Optimization(_AutomaticOptimization):
    def _make_zero_grad_fn(self, batch_idx: int, optimizer: Optimizer) -> Callable[[], None] | None:
        loop = self.trainer.fit_loop.epoch_loop
        assert isinstance(loop, AccumulatingLoop)
        return super()._make_zero_grad_fn(0 if loop.begins_window else 1, optimizer)
