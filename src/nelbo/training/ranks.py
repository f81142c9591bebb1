"""Adding up over the processes of a run."""

from lightning import Trainer
from torch import Tensor


def all_reduce_sum(trainer: Trainer, sums: Tensor) -> None:
    """Replace sums by those of all ranks together, in place. On all ranks."""
    sums.copy_(trainer.strategy.reduce(sums, reduce_op="sum"))
