"""Sums and counts from which a bound, its parts and its error bars are read.

Only sums are kept, so accumulators of several batches, rounds or ranks are added, never averaged.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from nelbo.evaluation.t_bins import Groups, two_groups

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
        if math.isnan(self.monte_carlo):
            return math.nan
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
        sum_of_fractions: of where between its limits a learned variance lies; NaN where it is not known.
        contribution: what the step adds to the bound: an unbiased estimate of L_0 or L_t, however unevenly
            steps were drawn; the sum over the chain is the bound less the prior.
    """

    count: Tensor
    sum: Tensor
    sum_of_squares: Tensor
    sum_of_errors: Tensor
    sum_of_fractions: Tensor
    contribution: Tensor

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


ROWS = len(fields(StepTable))


@dataclass(frozen=True)
class Draws:
    """Evaluated terms of a batch: R draws for each of B examples.

    Attributes:
        steps: (B, R) int64 in 1..K.
        weights: (B, R), with which the sum of weight * nats over a row is an unbiased estimate of the
            example's L_0 + sum of L_t.
        nats: (B, R) L_0 or L_t.
        prior: (B,) L_T.
        errors: (B, R) mean squared error of x0_hat per dimension, where it was measured.
        fractions: (B, R) where a learned variance lies between its limits, where there is one.
        monte_carlo: the variance that chance gave the sums of L_0 and of L_t, each (B,), where it is known.
    """

    steps: Tensor
    weights: Tensor
    nats: Tensor
    prior: Tensor
    errors: Tensor | None = None
    fractions: Tensor | None = None
    monte_carlo: tuple[Tensor, Tensor] | None = None


class BoundAccumulator:
    """Adds up draws of the bound's terms, on the device where they are made.

    Args:
        num_steps: K, the length of the chain.
        device: where the sums are kept.
        num_examples: size of the data set, where the estimate of each example is kept.
        groups: of steps, by which an example's estimate is kept apart; L_0 and all of L_t by default.
    """

    def __init__(
        self,
        num_steps: int,
        device: torch.device | str = "cpu",
        num_examples: int = 0,
        groups: Groups | None = None,
    ) -> None:
        self.num_steps = num_steps
        self.num_examples = num_examples
        self.groups = two_groups(num_steps) if groups is None else groups
        self._group_of_step = self.groups.of_step.to(device)
        # one flat vector, so that ranks meet in a single reduction
        sizes = (2, 3 * len(PARTS), ROWS * num_steps, num_examples * len(self.groups.columns))
        self._sums = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        counts, parts, steps, examples = self._sums.split(sizes)
        self._evaluations, self._added = counts[:1], counts[1:]
        self._parts = parts.view(3, len(PARTS))
        self._steps = steps.view(ROWS, num_steps)
        self._examples = examples.view(num_examples, len(self.groups.columns))

    def add(self, draws: Draws, index: Tensor | None = None) -> None:
        """Add the draws of a batch.

        Args:
            draws: of B examples.
            index: (B,) positions of the examples in the data set, where ``num_examples`` was given.
        """
        steps, nats = draws.steps, draws.nats.detach().double()
        weighted = draws.weights.double() * nats
        is_first = steps == 1
        reconstruction = weighted.masked_fill(~is_first, 0.0)
        denoising, prior = (weighted - reconstruction).sum(1), draws.prior.detach().double()
        self._add_parts(torch.stack([reconstruction.sum(1), denoising, prior]), draws.monte_carlo)
        rows = torch.stack(
            [
                torch.ones_like(nats),
                nats,
                nats.square(),
                _or_nan(draws.errors, nats),
                _or_nan(draws.fractions, nats),
                weighted,
            ]
        )
        self._steps.index_add_(1, steps.flatten() - 1, rows.flatten(1))
        self._evaluations += steps.numel()
        if self.num_examples:
            assert index is not None, "which examples these are must be told"
            group = self._group_of_step[steps - 1]
            by_group = weighted.new_zeros(len(steps), self._examples.shape[1])
            by_group.scatter_add_(1, group, weighted)
            by_group[:, -1] = prior
            self._examples.index_add_(0, index, by_group)

    def _add_parts(self, parts: Tensor, monte_carlo: tuple[Tensor, Tensor] | None) -> None:
        """parts (3, B): L_0, the sum of L_t, L_T of each example."""
        if monte_carlo is None:
            chance = torch.full_like(parts, torch.nan)
        else:  # the prior has none
            chance = torch.stack([*monte_carlo, torch.zeros_like(parts[0])]).detach().double()
        parts, chance = (torch.cat([rows.sum(0, keepdim=True), rows]) for rows in (parts, chance))
        self._parts += torch.stack([parts.sum(1), parts.square().sum(1), chance.sum(1)])
        self._added += parts.shape[1]

    @property
    def sums(self) -> Tensor:
        """All sums as one float64 vector (S,), to be added over ranks in place."""
        return self._sums

    @property
    def num_evaluations(self) -> int:
        """Network evaluations so far."""
        return int(self._evaluations)

    def empty(self) -> "BoundAccumulator":
        """An accumulator of the same kind with nothing in it."""
        return BoundAccumulator(self.num_steps, self._sums.device, self.num_examples, self.groups)

    def merge(self, other: "BoundAccumulator") -> None:
        """Add what another accumulator of the same kind holds."""
        self._sums += other.sums

    def reset(self) -> None:
        """Start again from zero."""
        self._sums.zero_()

    def forget_estimates(self) -> None:
        """Start again from zero, but keep the count of network evaluations: they were spent."""
        self._sums[1:].zero_()

    def estimate(self, rounds: int = 1) -> BoundEstimate:
        """Read the bound and its parts.

        Args:
            rounds: how many times each example was added; more than once needs ``num_examples``.
        """
        n = float(self._added)
        assert n > 0, "nothing was added to the accumulator"
        sums = self._parts
        if rounds > 1:
            assert self.num_examples, "repeated examples need an accumulator of each of them"
            # the spread that matters is that between examples, each averaged over its rounds
            means = self._examples / rounds
            parts = torch.stack([means.sum(1), means[:, 0], means[:, 1:-1].sum(1), means[:, -1]])
            sums = torch.stack([parts.sum(1), parts.square().sum(1), sums[2] / rounds**2])
        columns = sums.T.tolist()
        estimates = {
            name: _estimate(n / rounds, *column) for name, column in zip(PARTS, columns, strict=True)
        }
        return BoundEstimate(
            num_examples=round(n / rounds), num_evaluations=self.num_evaluations, **estimates
        )

    def step_table(self) -> StepTable:
        """The sums of each step."""
        *sums, weighted = self._steps.cpu().clone()
        return StepTable(*sums, contribution=weighted / float(self._added))

    def example_table(self, rounds: int = 1) -> Tensor:
        """The estimate of each example, (N, G) nats on the CPU, in the G columns of ``groups``."""
        return (self._examples / rounds).cpu()


def _or_nan(values: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan) if values is None else values.detach().double()


def _estimate(n: float, total: float, squares: float, chance: float) -> Estimate:
    """Mean and errors from sums over n examples: of their estimates, the squares, the variances by chance."""
    mean = total / n
    if n < 2:
        return Estimate(mean, math.nan, math.sqrt(chance))
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    return Estimate(mean, math.sqrt(variance / n), math.sqrt(chance) / n)
