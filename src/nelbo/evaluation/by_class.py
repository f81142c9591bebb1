"""The bound of each class: the mean of the estimates of its examples."""

from torch import Tensor

from nelbo.evaluation.accumulator import BoundParts, Estimate


def bound_by_class(examples: Tensor, label: Tensor) -> dict[int, BoundParts]:
    """The bound of each class with examples, by class number in increasing order.

    The mean over the classes, weighted by their counts, is the mean of all examples.

    Args:
        examples: (N, columns) nats: L_0, any number of columns that add up to the sum of L_t, and L_T.
        label: (N,) int64 class of each example.
    """
    return {number: _bound(examples[label == number]) for number in label.unique().tolist()}


def _bound(examples: Tensor) -> BoundParts:
    columns = (examples.sum(1), examples[:, 0], examples[:, 1:-1].sum(1), examples[:, -1])
    total, reconstruction, denoising, prior = map(Estimate.of, columns)
    return BoundParts(total, reconstruction, denoising, prior, len(examples))
