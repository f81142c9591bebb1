"""Differences between two models on the same examples."""

from torch import Tensor

from nelbo.evaluation.accumulator import Estimate


def paired_difference(first: Tensor, second: Tensor) -> Estimate:
    """Mean of first - second and its standard error, from the same N examples, each (N,).

    The spread that both have in common cancels, so the error is much smaller than that of either mean. If
    both are measured with the same noise, part of the Monte Carlo error cancels as well.
    """
    return Estimate.of(first - second)
