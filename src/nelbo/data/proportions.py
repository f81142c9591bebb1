"""Class labels in the proportions of the data."""

import torch
from torch import Tensor


def proportional_labels(counts: Tensor, n: int) -> Tensor:
    """Labels 0..C-1 in proportion to ``counts``, (n,) int64.

    Seats of Webster's method (Sainte-Lague) in the order of their allocation. Every prefix has the
    proportions of the data up to rounding, the prefixes are equal for all n, and classes of equal counts
    alternate.

    Args:
        counts: (C,) int64 examples of each class, at least one of them positive.
        n: number of labels.
    """
    present = counts.nonzero().flatten()
    share = counts[present].double() / counts.sum()
    # the k-th label of a class is at (k - 1/2) / share; one more for rounding
    seats = (n * share).ceil().long() + 1
    k = torch.cat([torch.arange(int(number)) for number in seats])
    label = present.repeat_interleave(seats)
    place = (k + 0.5) / share.repeat_interleave(seats)
    return label[place.argsort(stable=True)[:n]]
