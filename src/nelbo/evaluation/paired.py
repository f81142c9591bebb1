"""Differences between two models on the same examples."""

import math

from torch import Tensor

from nelbo.evaluation.accumulator import Estimate


def paired_difference(first: Tensor, second: Tensor) -> Estimate:
    """Mean of first - second and its standard error, from the same N examples, each (N,).

    What makes an example hard for both cancels, so this error is far below that of either mean; where both
    were measured with the same noise, much of the chance cancels as well.
    """
    difference = first - second
    n = len(difference)
    stderr = difference.std().item() / math.sqrt(n) if n > 1 else math.nan
    return Estimate(difference.mean().item(), stderr)
