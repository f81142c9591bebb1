"""Sums over the draws of each step of a chain: the table of L_t against t."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepTable:
    """Sums over the draws of each step of a chain of K steps, (K,) float64 on the CPU; nats.

    Attributes:
        t: (K,) int64 timestep of each step, clean to noisy. The first step is L_0, whatever its t.
        count: draws of the step.
        sum: of L_0 or L_t.
        sum_of_squares: of L_0 or L_t, nats^2.
        sum_of_errors: of the mean squared error of x0_hat per dimension; NaN where it was not measured.
        sum_of_interpolations: of the position of a learned variance between its limits; NaN if it is fixed.
    """

    t: Tensor
    count: Tensor
    sum: Tensor
    sum_of_squares: Tensor
    sum_of_errors: Tensor
    sum_of_interpolations: Tensor

    @property
    def drawn(self) -> Tensor:
        """(K,) bool: the steps with draws."""
        return self.count > 0

    @property
    def mean(self) -> Tensor:
        """(K,) nats; NaN for a step that was never drawn."""
        return self.sum / self.count

    @property
    def stderr(self) -> Tensor:
        """Standard error of :attr:`mean`, (K,) nats; NaN for fewer than two draws."""
        variance = (self.sum_of_squares / self.count - self.mean.square()).clamp(min=0.0)
        return (variance / (self.count - 1)).sqrt().where(self.count > 1, torch.nan)

    @property
    def mse(self) -> Tensor:
        """Mean squared error of x0_hat, (K,); NaN where it was not measured."""
        return self.sum_of_errors / self.count

    @property
    def interpolation(self) -> Tensor:
        """Mean position of a learned variance between its limits, (K,); NaN if it is fixed."""
        return self.sum_of_interpolations / self.count

    def merged(self, first: Tensor) -> "StepTable":
        """The sums over ranges of steps.

        Args:
            first: (S,) index of the first step of each range, increasing from 0.
        """
        group = torch.bucketize(torch.arange(len(self.t)), first, right=True) - 1
        columns = (self.count, self.sum, self.sum_of_squares, self.sum_of_errors, self.sum_of_interpolations)
        return StepTable(
            self.t[first], *(column.new_zeros(len(first)).index_add(0, group, column) for column in columns)
        )
