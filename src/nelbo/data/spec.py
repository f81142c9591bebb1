"""Shape, range and quantisation of data, available before it is read."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.render import DRAW, RENDERER_OF, Renderer

MOST_LEVELS = 2**16


@dataclass(frozen=True)
class DataSpec:
    """Shape and quantisation of one example.

    Range, storage, default clipping and pixels of data and samples follow from it:

    | levels | range | stored as | PNG file | pixels |
    | --- | --- | --- | --- | --- |
    | 2 to 256 | [-1, 1] | uint8 levels | grey, RGB | the range is black to white |
    | 257 to 65536 | [-1, 1] | uint16 levels | no | the range is black to white |
    | None (continuous) | none | float32 values | no | the smallest to the largest value drawn |

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for vectors, ``(C, L)`` for series, ``(C, D, H, W)`` for
            volumes.
        levels: number of equally spaced values, -1 and 1 among them; None if continuous.
        num_classes: labels are 0..num_classes-1; None if the data has no labels.
        class_names: name of each class, in the order of the labels; None if the classes have no names.
        renderer: how examples are drawn: ``image``, ``lines`` (series), ``slice`` (the central slice of
            volumes) or ``none``; None for the one of the shape, which is ``none`` for vectors.

    Raises:
        ValueError: for fewer than 2 or more than 65536 levels, names that are not one unique name per class,
            or a renderer of data of another shape.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    class_names: tuple[str, ...] | None = None
    renderer: Renderer | None = None

    def __post_init__(self) -> None:
        fitting = RENDERER_OF.get(len(self.shape), "none")
        if self.renderer not in (None, "none", fitting):
            raise ValueError(
                f"spec.renderer={self.renderer} does not fit data of shape {self.shape}: use "
                + " or ".join(dict.fromkeys((fitting, "none")))
            )
        if self.class_names is not None and len(set(self.class_names)) != self.num_classes:
            raise ValueError(
                f"spec.class_names must be {self.num_classes} different names, got {self.class_names}"
            )
        if self.levels is not None and not 2 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"levels={self.levels} must be 2 to {MOST_LEVELS}, or None for continuous data")

    @property
    def dims(self) -> int:
        """Number of scalars in one example."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether one example is a ``(C, H, W)`` image."""
        return len(self.shape) == 3

    @property
    def is_drawn(self) -> bool:
        """Whether there are pictures of examples."""
        return (self.renderer or RENDERER_OF.get(len(self.shape), "none")) != "none"

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest value; None if continuous. By default samplers clip x0_hat to it."""
        return None if self.levels is None else (-1.0, 1.0)

    @property
    def storage(self) -> torch.dtype:
        """Smallest dtype that stores an example exactly: uint8 or uint16 indices, or float32 values."""
        if self.levels is None:
            return torch.float32
        return torch.uint8 if self.levels <= 256 else torch.uint16

    @property
    def fits_png(self) -> bool:
        """Whether a PNG file stores an example exactly: grey and RGB images of at most 256 levels."""
        return self.is_image and self.shape[0] in (1, 3) and self.storage == torch.uint8

    @property
    def half_bin(self) -> float | None:
        """Half the distance between neighbouring levels, in units of the values; None if continuous."""
        return None if self.levels is None else 1.0 / (self.levels - 1)

    def from_levels(self, index: Tensor) -> Tensor:
        """Values of level indices: 0..levels-1 of any integer type -> float32 in [-1, 1].

        Continuous data is returned unchanged.
        """
        if self.levels is None:
            return index
        # multiply before dividing: the ends and the middle of the range are exact
        return index.float() * 2.0 / (self.levels - 1) - 1.0

    def to_levels(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`from_levels`: values -> nearest level indices, of dtype :attr:`storage`.

        Values out of range are clamped. Continuous values are converted to float32.
        """
        if self.levels is None:
            return x.float()
        last = self.levels - 1
        return (0.5 * last * (x + 1.0)).round().clamp(0, last).to(self.storage)

    def as_stored(self, x: Tensor) -> Tensor:
        """Values or level indices -> float32 values, rounded as by storing and reading them."""
        return self.from_levels(self.to_levels(x) if x.is_floating_point() else x)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Draw values (B, *shape) by :attr:`renderer`, as (B, 1 or 3, H, W) uint8 pixels.

        Continuous data is scaled by the extrema of the batch.
        """
        low, high = self.range or (float(x.min()), float(x.max()))
        return DRAW[self.renderer or RENDERER_OF[len(self.shape)]](x, low, high)
