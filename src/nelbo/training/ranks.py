"""Reductions over the ranks of a run."""

from lightning import Trainer
from torch import Tensor


def all_reduce_sum(trainer: Trainer, sums: Tensor) -> None:
    """Replace ``sums`` by their total over all ranks, in place. Call it on all ranks."""
    sums.copy_(trainer.strategy.reduce(sums, reduce_op="sum"))


def stack_ranks(trainer: Trainer, x: Tensor) -> Tensor:
    """The ``x`` of every rank, (ranks, *x.shape) on the CPU. Call it on all ranks."""
    stacked = x.new_zeros(trainer.world_size, *x.shape)
    stacked[trainer.global_rank] = x
    all_reduce_sum(trainer, stacked)
    return stacked.cpu()
