"""Estimation of a positive curve over the steps of a chain from a few draws per step."""

import torch
from torch import Tensor


def log_linear(count: Tensor, total: Tensor, draws_per_bin: int) -> Tensor:
    """Means over bins of neighbouring steps, interpolated linearly in the logarithm, (K,) float64.

    Args:
        count: (K,) number of draws of each step; may be 0.
        total: (K,) sums of the draws, not negative.
        draws_per_bin: number of draws per bin.
    """
    num_bins = max(1, int(count.sum()) // draws_per_bin)
    middle = count.cumsum(0) - 0.5 * count
    bins = (middle / count.sum() * num_bins).long().clamp(max=num_bins - 1)
    position = torch.arange(len(count), dtype=torch.float64)

    def added(values: Tensor) -> Tensor:
        return torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, values)

    drawn = added(count) > 0
    mean = (added(total)[drawn] / added(count)[drawn]).clamp(min=torch.finfo(torch.float64).tiny)
    centre = added(count * position)[drawn] / added(count)[drawn]
    return _interpolate(position, centre, mean.log()).exp()


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear through (xs, ys), constant beyond the ends; xs is increasing."""
    if len(xs) == 1:
        return ys.expand_as(x)
    right = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    share = ((x - xs[right - 1]) / (xs[right] - xs[right - 1])).clamp(0.0, 1.0)
    return torch.lerp(ys[right - 1], ys[right], share)
