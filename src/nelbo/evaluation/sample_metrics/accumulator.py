"""Sums over features: count, sum and outer products, from which a Gaussian is fitted."""

from collections.abc import Callable

import torch
from torch import Tensor


class FeatureAccumulator:
    """Adds up features of a set whose size is known, in float64; and keeps some of them as they are.

    Sums are added over batches and processes, so the Gaussian does not depend on how the set was shared out.

    Args:
        dims: F, numbers in the features of one example.
        size: N, examples in the whole set.
        kept: how many of them are kept, evenly out of all.
        device: of the sums.
    """

    def __init__(self, dims: int, size: int, kept: int = 0, device: torch.device | str = "cpu") -> None:
        self.dims = dims
        self.size = size
        self.sums = torch.zeros(1 + dims + dims * dims, dtype=torch.float64, device=device)
        self.rows = torch.zeros(min(kept, size), dims, device=device)  # (n, F), each at its place

    def add(self, features: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, F).
            index: (B,) int64 position of each example in the set.
        """
        x = features.to(self.sums)
        self.sums[0] += len(x)
        self.sums[1 : 1 + self.dims] += x.sum(0)
        self.sums[1 + self.dims :] += (x.T @ x).flatten()
        kept, index = len(self.rows), index.to(self.rows.device)
        place = index * kept // self.size
        is_kept = (index - 1) * kept // self.size < place  # the first of those that share a place
        self.rows[place[is_kept]] = features[is_kept].to(self.rows)

    def all_reduce_sum(self, add: Callable[[Tensor], None]) -> None:
        """Become the accumulator of all processes together; a row is 0 wherever it was not seen."""
        add(self.sums)
        add(self.rows)

    def mean(self) -> Tensor:
        """(F,) float64."""
        return self.sums[1 : 1 + self.dims] / self.sums[0]

    def covariance(self) -> Tensor:
        """(F, F) float64, unbiased."""
        count, mean = self.sums[0], self.mean()
        outer = self.sums[1 + self.dims :].view(self.dims, self.dims)
        return (outer - count * mean[:, None] * mean) / (count - 1)

    def is_finite(self) -> bool:
        """Whether no feature was NaN or infinite."""
        return bool(self.sums.isfinite().all())
