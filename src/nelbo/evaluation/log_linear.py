"""Estimation of a positive curve over the steps of a chain from a few draws per step."""

import numpy as np
import torch
from torch import Tensor


def log_linear(count: Tensor, total: Tensor, draws_per_bin: int) -> Tensor:
    """Means over bins of neighbouring steps, interpolated linearly in the logarithm, (K,) float64.

    Args:
        count: (K,) number of draws of each step, on the CPU; some may be 0.
        total: (K,) sums of the draws, not negative, on the CPU.
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
    return torch.from_numpy(np.interp(position.numpy(), centre.numpy(), mean.log().numpy())).exp()
