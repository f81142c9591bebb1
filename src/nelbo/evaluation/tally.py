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
    """A mean and its standard error.

    Attributes:
        mean: of the examples.
        stderr: of the mean, as an estimate for the distribution that the data set is a sample of.
        monte_carlo: the part of it that more noise and timesteps would remove; NaN where it is not known.
    """

    mean: float
    stderr: float
    monte_carlo: float = math.nan

    @property
    def data_set(self) -> float:
        """The part of the error that only more examples would remove; NaN where it is not known."""
        return math.sqrt(max(self.stderr**2 - self.monte_carlo**2, 0.0))


@dataclass(frozen=True)
class BoundEstimate:
    """The bound and its parts, in nats per example.

    Attributes:
        total: L_0 + sum of L_t + L_T.
        reconstruction: L_0.
        denoising: the sum of L_t over the chain.
        prior: L_T.
        num_examples: how many examples were measured.
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
        num_examples: size of the data set, where each example is measured several times.
    """

    def __init__(
        self, num_steps: int, device: torch.device | str = "cpu", num_examples: int | None = None
    ) -> None:
        self.num_steps = num_steps
        # one flat vector, so that ranks meet in a single reduction
        self._sums = torch.zeros(2 + 3 * len(PARTS) + 4 * num_steps, dtype=torch.float64, device=device)
        self._by_example = None  # (N, parts), the sums of each example's estimates
        if num_examples is not None:
            self._by_example = self._sums.new_zeros(num_examples, len(PARTS))
        self._evaluations, self._examples = self._sums[0:1], self._sums[1:2]
        self._parts = self._sums[2 : 2 + 3 * len(PARTS)].view(3, len(PARTS))
        self._steps = self._sums[2 + 3 * len(PARTS) :].view(4, num_steps)

    def add_examples(
        self,
        reconstruction: Tensor,
        denoising: Tensor,
        prior: Tensor,
        monte_carlo: tuple[Tensor, Tensor] | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Add unbiased estimates of the parts of single examples, each (B,) nats.

        Args:
            reconstruction: L_0.
            denoising: the sum of L_t.
            prior: L_T.
            monte_carlo: the variance that chance gave the first two, each (B,), where it is known. The
                prior has none.
            index: (B,) positions of the examples in the data set, where ``num_examples`` was given.
        """
        parts = torch.stack([reconstruction, denoising, prior]).detach().double()
        if monte_carlo is None:
            chance = torch.full_like(parts, torch.nan)
        else:
            chance = torch.stack([*monte_carlo, torch.zeros_like(prior)]).detach().double()
        parts, chance = (torch.cat([rows.sum(0, keepdim=True), rows]) for rows in (parts, chance))
        self._parts += torch.stack([parts.sum(1), parts.square().sum(1), chance.sum(1)])
        self._examples += parts.shape[1]
        if self._by_example is not None:
            assert index is not None
            self._by_example.index_add_(0, index, parts.T)

    def add_terms(self, index: Tensor, nats: Tensor, error: Tensor | None = None) -> None:
        """Add draws of single terms.

        Args:
            index: (B,) steps in 1..K.
            nats: (B,) their terms.
            error: (B,) mean squared error of x0_hat per dimension, where it was measured.
        """
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

    def forget_estimates(self) -> None:
        """Start again from zero, but keep the count of network evaluations: they were spent."""
        self._sums[1:].zero_()
        if self._by_example is not None:
            self._by_example.zero_()

    def estimate(self, rounds: int = 1) -> BoundEstimate:
        """Read the bound and its parts.

        Args:
            rounds: how many times each example was added; more than once needs ``num_examples``.
        """
        n = float(self._examples)
        assert n > 0, "nothing was added to the tally"
        sums = self._parts
        if rounds > 1:
            assert self._by_example is not None, "repeated examples need a tally of each of them"
            means = self._by_example / rounds
            # the spread that matters is that between examples, each averaged over its rounds
            sums = torch.stack([means.sum(0), means.square().sum(0), sums[2] / rounds**2])
        columns = sums.T.tolist()
        parts = {name: _estimate(n / rounds, *column) for name, column in zip(PARTS, columns, strict=True)}
        return BoundEstimate(num_examples=round(n / rounds), num_evaluations=int(self._evaluations), **parts)

    def step_table(self) -> StepTable:
        """The sums of each step."""
        return StepTable(*self._steps.cpu().clone())


def _estimate(n: float, total: float, squares: float, chance: float) -> Estimate:
    """Mean and errors from sums over n examples: of their estimates, the squares, the variances by chance."""
    mean = total / n
    if n < 2:
        return Estimate(mean, math.nan)
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    return Estimate(mean, math.sqrt(variance / n), math.sqrt(chance) / n)
