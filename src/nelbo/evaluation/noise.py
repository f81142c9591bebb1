"""Random noise keyed by example."""

import torch
from torch import Tensor

from nelbo.randomness import generator


class ExampleNoise:
    """Standard normal noise, one stream per example of a data set.

    Args:
        seed: of all streams.
        purpose: streams of different purposes are independent.
        index: (B,) position of each example in its data set.
        like: (B, ...) data, whose shape, dtype and device the noise has.
    """

    def __init__(self, seed: int, purpose: str, index: Tensor, like: Tensor) -> None:
        self._generators = [generator(seed, purpose, i) for i in index.tolist()]
        self._like = like

    def draw(self) -> Tensor:
        """The next noise of each example, (B, ...)."""
        shape, dtype = self._like.shape[1:], self._like.dtype
        draws = [torch.randn(shape, generator=g, dtype=dtype) for g in self._generators]
        return torch.stack(draws).to(self._like.device)

    def positions(self, number: int) -> Tensor:
        """The next uniform numbers of each example, (B, number) float64 in [0, 1)."""
        draws = [torch.rand(number, generator=g, dtype=torch.float64) for g in self._generators]
        return torch.stack(draws).to(self._like.device)
