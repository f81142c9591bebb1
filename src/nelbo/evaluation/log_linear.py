"""A positive curve over the steps of a chain, from few draws of each step."""

import torch
from torch import Tensor


def log_linear(count: Tensor, total: Tensor, draws_per_bin: int) -> Tensor:
    """Means of neighbouring steps, with straight lines between their logarithms, (K,).

    Args:
        count: (K,) draws of each step, some of them 0.
        total: (K,) their sums, not negative.
        draws_per_bin: draws that share a mean.
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
    """Piecewise-linear through (xs, ys), constant beyond the ends; xs increasing."""
    if len(xs) == 1:
        return ys.expand_as(x)
    right = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    share = ((x - xs[right - 1]) / (xs[right] - xs[right - 1])).clamp(0.0, 1.0)
    return torch.lerp(ys[right - 1], ys[right], share)
