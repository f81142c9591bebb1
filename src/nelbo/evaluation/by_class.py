"""The bound of each class: the estimates of single examples, averaged over those of a class."""

import math
from dataclasses import dataclass

from torch import Tensor

from nelbo.evaluation.accumulator import Estimate


@dataclass(frozen=True)
class ClassBound:
    """The bound of the examples of a class, in nats per example.

    Attributes:
        num_examples: of the class.
        total: L_0 + sum of L_t + L_T.
        reconstruction: L_0.
        denoising: the sum of L_t over the chain.
        prior: L_T.
    """

    num_examples: int
    total: Estimate
    reconstruction: Estimate
    denoising: Estimate
    prior: Estimate

    @property
    def parts(self) -> tuple[Estimate, Estimate, Estimate, Estimate]:
        """total, L_0, L_t, L_T."""
        return self.total, self.reconstruction, self.denoising, self.prior


def bound_by_class(examples: Tensor, label: Tensor) -> dict[int, ClassBound]:
    """The bound of each class that has examples, by its number, in order.

    Weighted by their counts, the means of all classes average to the mean of the whole.

    Args:
        examples: (N, columns) nats, L_0 first and L_T last, of L_t as many columns as there are between.
        label: (N,) int64 class of each example.
    """
    return {number: _bound(examples[label == number]) for number in label.unique().tolist()}


def _bound(examples: Tensor) -> ClassBound:
    columns = (examples.sum(1), examples[:, 0], examples[:, 1:-1].sum(1), examples[:, -1])
    return ClassBound(len(examples), *map(_estimate, columns))


def _estimate(nats: Tensor) -> Estimate:
    """Mean of (n,) and its standard error, NaN of a single example."""
    stderr = nats.std().item() / math.sqrt(len(nats)) if len(nats) > 1 else math.nan
    return Estimate(nats.mean().item(), stderr)
