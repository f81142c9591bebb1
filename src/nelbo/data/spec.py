"""What the rest of the program needs to know about the data before it has seen any."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """Shape, value range and quantisation of one example.

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for vectors.
        levels: number of equally spaced values, both ends of the range included; None if continuous.
        num_classes: labels are 0..num_classes-1; None if the data has no labels.
        low, high: the range of quantised values; continuous data does not use it.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    low: float = -1.0
    high: float = 1.0

    @property
    def dims(self) -> int:
        """Scalars in one example: what nats are divided by to get nats per dimension."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether one example is a ``(C, H, W)`` image."""
        return len(self.shape) == 3

    @property
    def half_bin(self) -> float | None:
        """Half the distance between neighbouring levels, in units of the values; None if continuous."""
        return None if self.levels is None else (self.high - self.low) / (2 * (self.levels - 1))

    def from_levels(self, index: Tensor) -> Tensor:
        """Values of level indices: 0..levels-1 of any integer type -> float32 in [low, high].

        Continuous data has no levels and comes back as it is.
        """
        if self.levels is None:
            return index
        # multiply before dividing: both ends of the range, and its middle, come out exactly
        return index.float() * (self.high - self.low) / (self.levels - 1) + self.low
