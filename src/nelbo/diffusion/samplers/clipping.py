"""Clipping of x0_hat to the range of the data.

An error of the network at one level may move x_t out of the range that it was trained on, and later steps
amplify it. Clamping prevents this but saturates pixels; dynamic thresholding (Imagen, Saharia et al. 2022,
section 2.3) rescales the whole example first.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from nelbo.diffusion.level import per_example

Clip = tuple[float, float] | Literal["auto"] | None


def checked_range(clip: Sequence[float] | None) -> tuple[float, float] | None:
    """``clip`` as (low, high); None stays None.

    Raises:
        ValueError: when it is not two increasing finite numbers.
    """
    if clip is None:
        return None
    try:
        low, high = (float(end) for end in clip)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"sampler.clip={clip}: expected [low, high] with low < high, auto, or null")
    return low, high


def checked_quantile(dynamic_clip: float | None, clip: tuple[float, float] | None) -> float | None:
    """``dynamic_clip`` as a number; None stays None.

    Raises:
        ValueError: when it is not inside (0, 1], or ``clip`` is None.
    """
    if dynamic_clip is None:
        return None
    try:
        quantile = float(dynamic_clip)
    except (TypeError, ValueError):
        quantile = math.nan
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"sampler.dynamic_clip={dynamic_clip} must be inside (0, 1], or null")
    if clip is None:
        raise ValueError("sampler.dynamic_clip needs a range: set sampler.clip=[low,high]")
    return quantile


def dynamic_threshold(x0_hat: Tensor, low: float, high: float, quantile: float) -> Tensor:
    """x0_hat rescaled into [low, high], separately for each example, (B, ...).

    In units in which the range is [-1, 1]: let s be the given quantile of an example's |x0_hat|, but at least
    1. x0_hat is clamped to [-s, s] and divided by s. An example inside the range is unchanged.

    Args:
        x0_hat: (B, ...).
        low: end of the range.
        high: end of the range.
        quantile: inside (0, 1]; 1 is the largest value.
    """
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    centred = (x0_hat - middle) / half
    s = per_example(quantile_per_example(centred.abs(), quantile).clamp(min=1.0), x0_hat)
    return middle + half * (centred.clamp(-s, s) / s)


def quantile_per_example(x: Tensor, quantile: float) -> Tensor:
    """Quantile over all axes but the first, with linear interpolation: (B, ...) -> (B,).

    Computed by sorting, because torch.quantile is limited to 2^24 values.
    """
    ordered = x.flatten(1).sort(1).values
    position = quantile * (ordered.shape[1] - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[:, below].lerp(ordered[:, above], position - below)
