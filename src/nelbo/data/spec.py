"""What the rest of the program needs to know about the data before it has seen any."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """Shape and quantisation of one example. Quantised values lie in [-1, 1].

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for vectors.
        levels: number of equally spaced values, -1 and 1 among them; None if continuous.
        num_classes: labels are 0..num_classes-1; None if the data has no labels.
        class_names: name of each class, in the order of the labels; None if the classes have no names.

    Raises:
        ValueError: if the names are not unique, or not one for each class.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.class_names is not None and len(set(self.class_names)) != self.num_classes:
            raise ValueError(
                f"spec.class_names must be {self.num_classes} different names, got {self.class_names}"
            )

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
        return None if self.levels is None else 1.0 / (self.levels - 1)

    def from_levels(self, index: Tensor) -> Tensor:
        """Values of level indices: 0..levels-1 of any integer type -> float32 in [-1, 1].

        Continuous data has no levels and comes back as it is.
        """
        if self.levels is None:
            return index
        # multiply before dividing: both ends of the range, and its middle, come out exactly
        return index.float() * 2.0 / (self.levels - 1) - 1.0
