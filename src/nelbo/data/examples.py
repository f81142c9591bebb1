"""Sets of examples that are fetched a whole batch at a time."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.randomness import generator


class Request(NamedTuple):
    """One batch, as asked of a worker. Plain integers: tensors would travel by shared memory."""

    epoch: int
    indices: list[int]


class Examples(ABC):
    """A split of a data set. Augmentation depends on the epoch and the index of an example only.

    Attributes:
        label: (N,) int64 class of each example, known without reading one; None where there are no classes.
    """

    label: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,) as they look in ``epoch``.

        Where ``Batch.index`` is not what was asked for, that example stands in for one that cannot be read.

        Raises:
            ValueError: for an example that cannot be read, naming it.
        """

    def name(self, index: int) -> str:
        """What a person can find an example by."""
        return f"example {index}"

    def content(self, indices: Tensor) -> bytes:
        """Bytes that identify the content of the examples at ``indices`` (B,), labels left out."""
        return self.fetch(indices, 0).x0.contiguous().flatten().view(torch.uint8).numpy().tobytes()

    def __getitem__(self, request: Request) -> Batch | ValueError:
        """What torch's DataLoader calls; the epoch comes along because workers outlive it.

        An example that cannot be read is returned as an error, not raised: what a worker raises arrives as
        text, wrapped in the worker's traceback.
        """
        try:
            return self.fetch(torch.tensor(request.indices), request.epoch)
        except ValueError as error:
            return error


class TensorExamples(Examples):
    """Examples held in memory.

    Args:
        x: ``(N, *shape)``, level indices of an integer type, or float32 values.
        label: ``(N,)`` int64, or None.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None) -> None:
        self.x = x
        self.label = label

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The same in every epoch."""
        label = None if self.label is None else self.label[indices]
        return Batch(self.x[indices], label, indices)


class RandomSubset(Examples):
    """Some of the examples, drawn without order from all of them: a listing is often sorted by class.

    Args:
        examples: all of them.
        size: how many, at most all; which ones depends on this number and theirs alone.
    """

    def __init__(self, examples: Examples, size: int) -> None:
        self.examples = examples
        order = torch.randperm(len(examples), generator=generator("subset", len(examples)))
        self.chosen = order[:size].sort().values
        self.label = None if examples.label is None else examples.label[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        """As all of them name it."""
        return self.examples.name(int(self.chosen[index]))

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), which count within the subset."""
        return self.examples.fetch(self.chosen[indices], epoch)._replace(index=indices)

    def content(self, indices: Tensor) -> bytes:
        """As all of them have it."""
        return self.examples.content(self.chosen[indices])


class Relabeled(Examples):
    """Examples whose classes have other numbers.

    Args:
        examples: with the numbers that are replaced.
        numbers: (classes,) int64, the new number of each class.
    """

    def __init__(self, examples: Examples, numbers: Tensor) -> None:
        assert examples.label is not None, "data with class names has labels"
        self.examples = examples
        self.numbers = numbers
        self.label = numbers[examples.label]

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        """Name of an example, unchanged."""
        return self.examples.name(index)

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), with the new numbers."""
        batch = self.examples.fetch(indices, epoch)
        return batch._replace(label=None if batch.label is None else self.numbers[batch.label])

    def content(self, indices: Tensor) -> bytes:
        """Content of the examples, unchanged."""
        return self.examples.content(indices)


class Flipped(Examples):
    """Images (C, H, W) mirrored left to right, each with probability 1/2 in each epoch."""

    def __init__(self, examples: Examples, seed: int) -> None:
        self.examples = examples
        self.label = examples.label
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        """As the images name it."""
        return self.examples.name(index)

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The images at ``indices``, those that are to be mirrored in ``epoch`` mirrored."""
        batch = self.examples.fetch(indices, epoch)
        _, _, _, width = batch.x0.shape
        mirrored = _coin_tosses(len(self), self.seed, epoch)[indices]
        # by index: torch flips no uint16
        other_way = batch.x0[..., torch.arange(width - 1, -1, -1)]
        return batch._replace(x0=torch.where(mirrored[:, None, None, None], other_way, batch.x0))


@lru_cache(maxsize=1)  # one toss for each example of the epoch: too many to repeat for each batch
def _coin_tosses(n: int, seed: int, epoch: int) -> Tensor:
    return torch.rand(n, generator=generator(seed, epoch, "flip")) < 0.5
