"""Sums over features, from which a Gaussian is fitted."""

from collections.abc import Callable

import torch
from torch import Tensor


class FeatureAccumulator:
    """Sums of the features of N examples in float64, and the features of some of them.

    Sums are added over batches and ranks, so the Gaussian does not depend on how the examples are
    distributed.

    Attributes:
        count: (), number of examples.
        total: (F,), sum of the features.
        outer: (F, F), sum of the outer products of the features with themselves.
        rows: (n, F) float32, the stored features.

    Args:
        dims: F, number of features of an example.
        size: N, number of examples.
        kept: number of examples whose features are stored, evenly spaced among all.
        device: of the sums.
    """

    def __init__(self, dims: int, size: int, kept: int = 0, device: torch.device | str = "cpu") -> None:
        self.dims = dims
        self.size = size
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(dims, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dims, dims, dtype=torch.float64, device=device)
        self.rows = torch.zeros(min(kept, size), dims, device=device)

    def add(self, features: Tensor, index: Tensor) -> None:
        """Add the features of a batch.

        Args:
            features: (B, F).
            index: (B,) int64 position of each example in the set.
        """
        x = features.to(self.total)
        self.count += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x
        kept, index = len(self.rows), index.to(self.rows.device)
        place = index * kept // self.size
        is_kept = (index - 1) * kept // self.size < place  # the first of those that share a place
        self.rows[place[is_kept]] = features[is_kept].to(self.rows)

    def all_reduce_sum(self, reduce: Callable[[Tensor], None]) -> None:
        """Replace sums and rows by their totals over all ranks; rows of other ranks are 0.

        Args:
            reduce: replaces a tensor by its sum over the ranks, in place.
        """
        for tensor in (self.count, self.total, self.outer, self.rows):
            reduce(tensor)

    def mean(self) -> Tensor:
        """Mean of the features, (F,) float64."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """Unbiased covariance of the features, (F, F) float64."""
        mean = self.mean()
        return (self.outer - self.count * mean[:, None] * mean) / (self.count - 1)

    def is_finite(self) -> bool:
        """Whether all features are finite."""
        return bool(self.total.isfinite().all() and self.outer.isfinite().all())
