"""Shape, range and quantisation of data, available before it is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.data.render import DRAW, RENDERER_OF, Renderer

MOST_LEVELS = 2**16


@dataclass(frozen=True)
class CondSpec:
    """A tensor of a mapping of conditions.

    Args:
        shape: of the condition of one example.
        null: value that fills a dropped condition, for classifier-free guidance.
        dtype: ``float32`` or ``int64``.
    """

    shape: tuple[int, ...] = ()
    null: float = 0.0
    dtype: Literal["float32", "int64"] = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the tensor."""
        return torch.float32 if self.dtype == "float32" else torch.int64


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
        cond: the tensors of a mapping of conditions by name; None for data with class labels, or without
            conditions.

    Raises:
        ValueError: for fewer than 2 or more than 65536 levels, names that are not one unique name per class,
            a renderer of data of another shape, or data with both classes and a mapping of conditions.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    class_names: tuple[str, ...] | None = None
    renderer: Renderer | None = None
    cond: Mapping[str, CondSpec] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        fitting = RENDERER_OF.get(len(self.shape), "none")
        if self.renderer not in (None, "none", fitting):
            raise ValueError(
                f"spec.renderer={self.renderer} does not fit data of shape {self.shape}: use "
                + " or ".join(dict.fromkeys((fitting, "none")))
            )
        if self.cond is not None and (self.num_classes is not None or not self.cond):
            raise ValueError("spec.cond must have at least one tensor, and num_classes must be None")
        if self.class_names is not None and len(set(self.class_names)) != self.num_classes:
            raise ValueError(
                f"spec.class_names must be {self.num_classes} different names, got {self.class_names}"
            )
        if self.levels is not None and not 2 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"levels={self.levels} must be 2 to {MOST_LEVELS}, or None for continuous data")

    @property
    def is_conditional(self) -> bool:
        """Whether examples have class labels or other conditions."""
        return self.num_classes is not None or self.cond is not None

    def example_cond(self, n: int) -> Cond:
        """Conditions of ``n`` examples: class 0, or the null value of each tensor of a mapping."""
        if self.cond is None:
            return torch.zeros(n, dtype=torch.long)
        return {
            name: torch.full((n, *own.shape), own.null, dtype=own.torch_dtype)
            for name, own in self.cond.items()
        }

    def to_cond(self, cond: Cond | None) -> Cond | None:
        """Conditions in the dtypes of the data: int64 labels, or those of ``cond``."""
        if cond is None or isinstance(cond, Tensor):
            return None if cond is None else cond.long()  # may be uint8
        assert self.cond is not None, "DataModule.split compares the conditions with spec"
        return {name: cond[name].to(own.torch_dtype) for name, own in self.cond.items()}

    def check_cond(self, cond: Cond | None, n: int) -> None:
        """Compare a mapping of conditions of ``n`` examples with ``cond``.

        Raises:
            ValueError: for other names or shapes, or for anything but a mapping.
        """
        expected = {name: (n, *own.shape) for name, own in (self.cond or {}).items()}
        found = (
            {name: tuple(value.shape) for name, value in cond.items()} if isinstance(cond, Mapping) else cond
        )
        if found != expected:
            raise ValueError(f"conditions must be a mapping of the shapes {expected}, not {found}")

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
        """Whether examples can be drawn."""
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
