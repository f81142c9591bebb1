"""The bound of each class: the mean of the estimates of its examples."""

from dataclasses import dataclass

from torch import Tensor

from nelbo.evaluation.accumulator import Estimate


@dataclass(frozen=True)
class ClassBound:
    """The bound of the examples of a class, in nats per example.

    Attributes:
        num_examples: number of examples of the class.
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
        """The total, L_0, the sum of L_t, and L_T."""
        return self.total, self.reconstruction, self.denoising, self.prior


def bound_by_class(examples: Tensor, label: Tensor) -> dict[int, ClassBound]:
    """The bound of each class with examples, by class number in increasing order.

    The mean over the classes, weighted by their counts, is the mean of all examples.

    Args:
        examples: (N, columns) nats: L_0, any number of columns that add up to the sum of L_t, and L_T.
        label: (N,) int64 class of each example.
    """
    return {number: _bound(examples[label == number]) for number in label.unique().tolist()}


def _bound(examples: Tensor) -> ClassBound:
    columns = (examples.sum(1), examples[:, 0], examples[:, 1:-1].sum(1), examples[:, -1])
    return ClassBound(len(examples), *map(Estimate.of, columns))
