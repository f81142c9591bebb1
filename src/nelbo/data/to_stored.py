"""Checks of examples that a program has in memory, such as the images of a notebook."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo.data.spec import DataSpec

TOLERANCE = 0.1  # of the distance of two levels: the rounding of half precision is below it


def to_stored(x: Any, spec: DataSpec) -> Tensor:
    """Examples as they are stored, (N, *shape) on the CPU: level indices, or float32 of continuous data.

    Args:
        x: (N, *shape) tensor or array. Of quantised data, integers are level indices, 0 to 255 for 8-bit
            images, and floats are values in [-1, 1]. Of continuous data, values.
        spec: of the examples.

    Raises:
        ValueError: for another type, shape or range, and for floats that are between the levels.
    """
    if not isinstance(x, Tensor | np.ndarray):
        raise ValueError(f"images must be a tensor or an array, not a {type(x).__name__}")
    x = torch.as_tensor(x).detach().cpu()
    check_shape(x, spec)
    if len(x) == 0:
        raise ValueError("images: there are none")
    if x.dtype == torch.bool or x.is_complex() or not (spec.levels or x.is_floating_point()):
        raise ValueError(f"images: {x.dtype} is not a type of this data: expected {_expected(spec)}")
    low, high = x.double().aminmax()  # torch has no extremes of uint16
    if not (low.isfinite() and high.isfinite()):
        raise ValueError("images have values that are not finite")
    if spec.levels is None:
        return x.float()
    low_allowed, high_allowed = (0, spec.levels - 1) if not x.is_floating_point() else (-1, 1)
    if low < low_allowed - 1e-3 or high > high_allowed + 1e-3:
        raise ValueError(f"images have {x.dtype} values of {low:g} to {high:g}: expected {_expected(spec)}")
    if not x.is_floating_point():
        return x.to(spec.storage)
    position = (x.double() + 1.0) * (spec.levels - 1) / 2.0
    if (position - position.round()).abs().max() > TOLERANCE:
        in_unit_range = "; values in [0, 1] are 2 * images - 1 in [-1, 1]" if low >= 0 else ""
        raise ValueError(
            f"images have values between the {spec.levels} levels of the data, and a bound in bits counts "
            f"levels: expected {_expected(spec)}{in_unit_range}"
        )
    return spec.to_levels(x)


def check_shape(x: Tensor, spec: DataSpec) -> None:
    """Check the shape of examples.

    Raises:
        ValueError: for a shape other than (N, *shape).
    """
    if tuple(x.shape[1:]) == spec.shape and x.ndim == len(spec.shape) + 1:
        return
    is_channels_last = spec.is_image and tuple(x.shape[1:]) == (*spec.shape[1:], spec.shape[0])
    hint = "; move the channels first: images.transpose(0, 3, 1, 2) of an array, permute of a tensor"
    expected = ", ".join(map(str, ("N", *spec.shape)))
    raise ValueError(
        f"images have shape {tuple(x.shape)}: the model needs ({expected})"
        + (hint if is_channels_last else "")
    )


def _expected(spec: DataSpec) -> str:
    if spec.levels is None:
        return "floats"
    return f"integers from 0 to {spec.levels - 1}, or floats in [-1, 1]"
