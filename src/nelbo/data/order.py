"""The order of examples, and their distribution among ranks.

``batch_size`` is the global batch: the examples of one step over all ranks. The composition of a batch does
not depend on the number of ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from nelbo.randomness import generator


class Order(ABC):
    """The batches of this rank, epoch by epoch.

    Args:
        n: number of examples.
        batch_size: examples in a global batch.
        rank, world_size: of this process.

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
    """Training: a permutation of all examples, keyed by (seed, epoch).

    Rank r takes the r-th contiguous part of each global batch. An incomplete last batch is dropped.

    Raises:
        ValueError: if there are fewer examples than ``batch_size``.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(n, batch_size, rank, world_size)
        if n < batch_size:
            raise ValueError(
                f"data.batch_size={batch_size} is larger than the training set of {n} examples: "
                f"choose at most {n}"
            )
        self.seed = seed

    def __len__(self) -> int:
        return self.n // self.batch_size

    def permutation(self, epoch: int) -> Tensor:
        """The order of all examples, (n,) int64."""
        return torch.randperm(self.n, generator=generator(self.seed, epoch, "order"))

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank: ``len(self)`` tensors (batch_size / world_size,)."""
        grid = self.permutation(epoch)[: len(self) * self.batch_size].view(len(self), self.world_size, -1)
        return list(grid[:, self.rank])


class BlockShuffledOrder(ShuffledOrder):
    """Training on examples that are read in blocks, such as the row groups of a file.

    The blocks are permuted, and the examples of ``buffer`` consecutive ones. So a batch needs few blocks.

    Args:
        n, batch_size, seed, rank, world_size: see :class:`ShuffledOrder`.
        block_sizes: number of examples of each block; they sum to ``n``.
        buffer: number of examples that are shuffled together.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        block_sizes: Sequence[int],
        buffer: int,
    ) -> None:
        super().__init__(n, batch_size, seed, rank, world_size)
        self.block_sizes = torch.tensor(block_sizes)
        self.buffer = buffer

    def permutation(self, epoch: int) -> Tensor:
        """The order of all examples, (n,) int64."""
        g = generator(self.seed, epoch, "order")
        blocks = torch.randperm(len(self.block_sizes), generator=g)
        sizes = self.block_sizes[blocks]
        # the first example of each block, less the place where it is read
        shift = (self.block_sizes.cumsum(0) - self.block_sizes)[blocks] - (sizes.cumsum(0) - sizes)
        order = torch.arange(self.n) + shift.repeat_interleave(sizes)
        return torch.cat([part[torch.randperm(len(part), generator=g)] for part in order.split(self.buffer)])


class SequentialOrder(Order):
    """Evaluation: every example exactly once; rank r takes r, r + world_size, ...

    Nothing is dropped or padded, so the last batch may be smaller, and ranks may differ by one batch.
    """

    def __len__(self) -> int:
        return len(self.batches(0))

    def batches(self, epoch: int) -> list[Tensor]:
        """The batches of this rank, the same in every epoch."""
        mine = torch.arange(self.rank, self.n, self.world_size)
        return list(mine.split(self.batch_size // self.world_size)) if len(mine) else []
