"""Which examples come when, and on which rank.

``batch_size`` is always the global batch: what all ranks together see in one step. The number of
ranks therefore changes neither the optimisation nor which examples meet in a batch.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nelbo.randomness import generator


class Order(ABC):
    """The batches of this rank, epoch by epoch.

    Args:
        n: number of examples.
        batch_size: examples in a global batch.
        rank, world_size: this process among all.

    Raises:
        ValueError: if the batch cannot be divided evenly among the processes.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"the global batch size must be a positive multiple of the number of processes "
                f"({world_size}), got {batch_size}"
            )
        self.n = n
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank, each the indices of its examples."""


class ShuffledOrder(Order):
    """Training: a new permutation each epoch, a function of (seed, epoch) alone.

    Rank r takes the r-th contiguous piece of each global batch. What does not fill a last batch is
    left out of the epoch.

    Raises:
        ValueError: if there are fewer examples than one batch takes.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(n, batch_size, rank, world_size)
        if n < batch_size:
            raise ValueError(
                f"batch_size={batch_size} is larger than the training set of {n} examples: choose at most {n}"
            )
        self.seed = seed

    def __len__(self) -> int:
        return self.n // self.batch_size

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank: ``len(self)`` tensors (batch_size / world_size,)."""
        order = torch.randperm(self.n, generator=generator(self.seed, epoch, "order"))
        grid = order[: len(self) * self.batch_size].view(len(self), self.world_size, -1)
        return list(grid[:, self.rank])


class SequentialOrder(Order):
    """Evaluation: every example exactly once, rank r taking every world_size-th from the r-th on.

    Nothing is dropped, padded or repeated, so the last batch may be smaller, and a rank may have one
    batch fewer than another.
    """

    def __len__(self) -> int:
        return len(self.batches(0))

    def batches(self, epoch: int) -> list[Tensor]:
        """The batches of this rank, the same in every epoch."""
        mine = torch.arange(self.rank, self.n, self.world_size)
        return list(mine.split(self.batch_size // self.world_size)) if len(mine) else []
