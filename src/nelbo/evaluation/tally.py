"""Sums and counts from which a bound, its parts and its error bars are read.

Only sums are kept, so tallies of several batches or ranks are added, never averaged.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = ("total", "reconstruction", "denoising", "prior")


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    mean: float
    stderr: float

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(self.mean * factor, self.stderr * abs(factor))


@dataclass(frozen=True)
class BoundEstimate:
    """The bound and its parts, in nats per example.

    Attributes:
        total: L_0 + sum of L_t + L_T.
        reconstruction: L_0.
        denoising: the sum of L_t over the chain.
        prior: L_T.
        num_examples: how many examples (for live estimates: draws) the errors are over.
        num_evaluations: network evaluations behind it.
    """

    total: Estimate
    reconstruction: Estimate
    denoising: Estimate
    prior: Estimate
    num_examples: int
    num_evaluations: int


@dataclass(frozen=True)
class StepTable:
    """Sums over the draws of each step of the chain, (K,) float64 on the CPU; nats.

    Attributes:
        count: draws of the step.
        sum: of the term L_0 or L_t.
        sum_of_squares: of the term.
        sum_of_errors: of the mean squared error of x0_hat per dimension; NaN where it was not measured.
    """

    count: Tensor
    sum: Tensor
    sum_of_squares: Tensor
    sum_of_errors: Tensor

    @property
    def mean(self) -> Tensor:
        """(K,) nats; NaN where a step was never drawn."""
        return self.sum / self.count

    @property
    def stderr(self) -> Tensor:
        """Standard error of :attr:`mean`, (K,) nats; NaN below two draws."""
        variance = (self.sum_of_squares / self.count - self.mean.square()).clamp(min=0.0)
        return (variance / (self.count - 1)).sqrt().where(self.count > 1, torch.nan)

    @property
    def rmse(self) -> Tensor:
        """Root mean squared error of x0_hat, (K,) in the units of the data; NaN where it is not known."""
        return (self.sum_of_errors / self.count).sqrt()


class BoundTally:
    """Adds up draws of the bound's terms, on the device where they are made.

    Args:
        num_steps: K, the length of the chain.
        device: where the sums are kept.
    """

    def __init__(self, num_steps: int, device: torch.device | str = "cpu") -> None:
        self.num_steps = num_steps
        # one flat vector, so that ranks meet in a single reduction
        self._sums = torch.zeros(2 + 2 * len(PARTS) + 4 * num_steps, dtype=torch.float64, device=device)
        self._evaluations, self._examples = self._sums[0:1], self._sums[1:2]
        self._parts = self._sums[2 : 2 + 2 * len(PARTS)].view(2, len(PARTS))
        self._steps = self._sums[2 + 2 * len(PARTS) :].view(4, num_steps)

    def add_examples(self, reconstruction: Tensor, denoising: Tensor, prior: Tensor) -> None:
        """Add unbiased estimates of the parts of single examples, each (B,) nats."""
        parts = torch.stack([reconstruction, denoising, prior]).detach().double()
        parts = torch.cat([parts.sum(0, keepdim=True), parts])
        self._parts[0] += parts.sum(1)
        self._parts[1] += parts.square().sum(1)
        self._examples += parts.shape[1]

    def add_terms(self, index: Tensor, nats: Tensor, error: Tensor | None = None) -> None:
        """Add draws of single terms: steps (B,) in 1..K, their nats (B,), x0_hat's mean squared error (B,)."""
        nats = nats.detach().double()
        error = torch.full_like(nats, torch.nan) if error is None else error.detach().double()
        rows = torch.stack([torch.ones_like(nats), nats, nats.square(), error])
        self._steps.index_add_(1, index - 1, rows)
        self._evaluations += len(nats)

    @property
    def sums(self) -> Tensor:
        """All sums as one float64 vector, to be added over ranks in place."""
        return self._sums

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return bool(self._examples == 0)

    def reset(self) -> None:
        """Start again from zero."""
        self._sums.zero_()

    def estimate(self) -> BoundEstimate:
        """Read the bound and its parts; one transfer to the host."""
        n = float(self._examples)
        if n == 0:
            raise ValueError("no bound can be read: nothing was added to the tally")
        first, second = (row.tolist() for row in self._parts.cpu())
        parts = {name: _estimate(n, *sums) for name, *sums in zip(PARTS, first, second, strict=True)}
        return BoundEstimate(num_examples=int(n), num_evaluations=int(self._evaluations), **parts)

    def step_table(self) -> StepTable:
        """The sums of each step."""
        return StepTable(*self._steps.cpu().clone())


def _estimate(n: float, total: float, squares: float) -> Estimate:
    mean = total / n
    if n < 2:
        return Estimate(mean, math.nan)
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    return Estimate(mean, math.sqrt(variance / n))
