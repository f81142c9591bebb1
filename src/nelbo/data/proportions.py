"""Class labels in the proportions of the data."""

import torch
from torch import Tensor


def proportional_labels(counts: Tensor, n: int) -> Tensor:
    """Labels 0..C-1 in proportion to ``counts``, (n,) int64.

    The seats of Webster's method (Sainte-Lague) in the order in which it awards them. So any number of
    first labels has the proportions of the data as nearly as whole numbers can; the first labels are the same
    for every n; and classes of equal counts take turns.

    Args:
        counts: (C,) int64 examples of each class, at least one of them positive.
        n: how many labels.
    """
    present = counts.nonzero().flatten()
    share = counts[present].double() / counts.sum()
    # a class has its k-th label at (k - 1/2) / share; rounding costs it at most one
    seats = (n * share).ceil().long() + 1
    k = torch.cat([torch.arange(int(number)) for number in seats])
    label = present.repeat_interleave(seats)
    place = (k + 0.5) / share.repeat_interleave(seats)
    return label[place.argsort(stable=True)[:n]]
