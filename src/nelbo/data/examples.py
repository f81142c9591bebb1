"""Splits of a data set, read batch by batch."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nelbo.cond import Cond, map_cond, rows_of
from nelbo.data.batch import Batch
from nelbo.randomness import generator


class Request(NamedTuple):
    """One batch, as requested from a worker. Plain integers: tensors would use shared memory."""

    epoch: int
    indices: list[int]


class Examples(ABC):
    """A split of a data set. Augmentation depends only on the epoch and the index of an example.

    Attributes:
        label: (N,) int64 class of each example, available without reading it; None if there are no classes.
        block_sizes: numbers of consecutive examples that are read together, which sum to N; None for random
            access.
    """

    label: Tensor | None = None
    block_sizes: list[int] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), augmented for ``epoch``.

        If ``Batch.index`` differs from ``indices``, that example replaces one that cannot be read.

        Raises:
            ValueError: for an example that cannot be read; the message names it.
        """

    def name(self, index: int) -> str:
        """Name of an example for messages, such as its file."""
        return f"example {index}"

    def content(self, indices: Tensor) -> bytes:
        """Bytes that identify the examples at ``indices`` (B,), without labels."""
        return self.fetch(indices, 0).x0.contiguous().flatten().view(torch.uint8).numpy().tobytes()

    def __getitem__(self, request: Request) -> Batch | ValueError:
        """Called by torch's DataLoader. The request has the epoch, because workers persist across epochs.

        An error is returned, not raised: an exception of a worker arrives as the text of its traceback.
        """
        try:
            return self.fetch(torch.tensor(request.indices), request.epoch)
        except ValueError as error:
            return error


class TensorExamples(Examples):
    """Examples held in memory.

    Args:
        x: ``(N, *shape)``, level indices of an integer type, or float32 values.
        cond: ``(N,)`` int64 class labels, or a mapping of tensors ``(N, ...)``; None for neither.
    """

    def __init__(self, x: Tensor, cond: Cond | None = None) -> None:
        self.x = x
        self.cond = cond
        self.label = cond if isinstance(cond, Tensor) else None

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), equal in all epochs."""
        return Batch(self.x[indices], rows_of(self.cond, indices), indices)


class WrappedExamples(Examples):
    """Base of transformed splits; subclasses implement ``fetch``.

    Args:
        examples: the split to transform.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.label = examples.label
        self.block_sizes = examples.block_sizes

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        """Name of an example, unchanged."""
        return self.examples.name(index)

    def content(self, indices: Tensor) -> bytes:
        """Content of the examples, unchanged."""
        return self.examples.content(indices)


class RandomSubset(WrappedExamples):
    """A random subset, in the order of the whole split.

    Args:
        examples: the whole split.
        size: number of examples, at most all. The subset depends only on the two sizes.
    """

    def __init__(self, examples: Examples, size: int) -> None:
        super().__init__(examples)
        order = torch.randperm(len(examples), generator=generator("subset", len(examples)))
        self.chosen = order[:size].sort().values
        self.label = None if examples.label is None else examples.label[self.chosen]
        if examples.block_sizes is not None:
            ends = torch.tensor(examples.block_sizes).cumsum(0)
            counts = torch.bincount(torch.searchsorted(ends, self.chosen, right=True))
            self.block_sizes = counts[counts > 0].tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        """Name of an example in the whole split."""
        return super().name(int(self.chosen[index]))

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,) of the subset; -1 as index of one that replaces another."""
        chosen = self.chosen[indices]
        batch = self.examples.fetch(chosen, epoch)
        return batch._replace(index=indices.where(batch.index == chosen, -1))

    def content(self, indices: Tensor) -> bytes:
        """Content of the examples in the whole split."""
        return super().content(self.chosen[indices])


class Relabeled(WrappedExamples):
    """Examples with renumbered classes.

    Args:
        examples: with labels.
        numbers: (classes,) int64, the new number of each class.
    """

    def __init__(self, examples: Examples, numbers: Tensor) -> None:
        assert examples.label is not None, "data with class names has labels"
        super().__init__(examples)
        self.numbers = numbers
        self.label = numbers[examples.label]

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), with the new numbers."""
        batch = self.examples.fetch(indices, epoch)
        return batch._replace(cond=map_cond(lambda label: self.numbers[label], batch.cond))


class Flipped(WrappedExamples):
    """Images (C, H, W) mirrored left to right, each with probability 1/2 in each epoch."""

    def __init__(self, examples: Examples, seed: int) -> None:
        super().__init__(examples)
        self.seed = seed

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The images at ``indices`` (B,), mirrored as drawn for ``epoch``."""
        batch = self.examples.fetch(indices, epoch)
        _, _, _, width = batch.x0.shape
        mirrored = _coin_tosses(len(self), self.seed, epoch)[indices]
        # by index: torch.flip does not support uint16
        other_way = batch.x0[..., torch.arange(width - 1, -1, -1)]
        return batch._replace(x0=torch.where(mirrored[:, None, None, None], other_way, batch.x0))


@lru_cache(maxsize=1)  # drawn once per epoch, for all of its batches
def _coin_tosses(n: int, seed: int, epoch: int) -> Tensor:
    return torch.rand(n, generator=generator(seed, epoch, "flip")) < 0.5
