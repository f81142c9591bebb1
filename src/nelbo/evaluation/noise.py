"""Random noise keyed by example."""

from torch import Tensor

from nelbo.randomness import normals


class ExampleNoise:
    """Standard normal noise, one stream per example of a data set.

    Args:
        seed: of all streams.
        purpose: streams of different purposes are independent.
        index: (B,) position of each example in its data set.
        like: (B, ...) data, whose shape, dtype and device the noise has.
    """

    def __init__(self, seed: int, purpose: str, index: Tensor, like: Tensor) -> None:
        self._key = (seed, purpose)
        self._row = index.to(like.device)
        self._like = like
        self._next = 0

    def draw(self) -> Tensor:
        """The next noise of each example, (B, ...)."""
        return self.draws(1).squeeze(1)

    def draws(self, number: int) -> Tensor:
        """The next draws of noise of each example, (B, number, ...)."""
        first, self._next = self._next, self._next + number
        shape, dtype = self._like.shape[1:], self._like.dtype
        return normals(self._key, self._row, shape, dtype, range(first, self._next))
