"""Timesteps in proportion to the size of their terms: the same error bar for far fewer evaluations.

A pilot draws a few timesteps and estimates sqrt(E[L_t^2]) along the chain. The rounds after it draw t with
p(t) proportional to that (and a uniform floor), as Improved DDPM does in training (Nichol & Dhariwal 2021,
section 3.3): twice in each of R / 2 ranges of equal probability for every example, with weight 1 / (R p(t)).
The pilot's estimates are discarded, so every round is unbiased. The number of rounds is decided after
round 1, from its errors alone: the Monte Carlo error should be at most ``target_stderr``, or a small fraction
of the error that comes from the finite data set.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate
from nelbo.evaluation.estimators.base import RECONSTRUCTION_DRAWS, Assignment, MultiRoundEstimator
from nelbo.evaluation.log_linear import log_linear
from nelbo.evaluation.stratified_draws import paired_stratified_draws
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

PILOT_DRAWS_PER_BIN = 8


@dataclass(frozen=True)
class Pilot:
    """The first pass through the data. Its estimates are discarded."""


@dataclass(frozen=True)
class MainRound:
    """A pass whose draws count.

    Attributes:
        probabilities: (K - 1,) float64, p(t) of steps 2..K, from the pilot.
        number: of the round, from 1.
        planned: rounds that reach the target; None in round 1, whose errors decide it.
    """

    probabilities: Tensor
    number: int = 1
    planned: int | None = None


class ImportanceEstimator(MultiRoundEstimator):
    """Stratified importance sampling of timesteps, over the whole data set in every round.

    Args:
        target_stderr: Monte Carlo standard error to reach, in the unit of the bound (bits/dim or nats). The
            error that comes from the finite data set is reported, and does not count.
        enough: rounds also end when the Monte Carlo error is at most this fraction of the error from the
            finite data set.
        max_evaluations: network evaluations after which no further round begins, including the pilot; None:
            as many as all terms of all examples.
        evaluations_per_round: per example, two of them for L_0.
        pilot_evaluations: of the whole pilot, at least three per example.
        floor: share of uniform draws.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; at least one batch.
        control_variate: subtract a control variate, see :class:`BoundEstimator`.

    Raises:
        ValueError: for an argument that is out of range.
    """

    def __init__(
        self,
        target_stderr: PositiveFloat = 0.005,
        enough: NonNegativeFloat = 0.25,
        max_evaluations: PositiveInt | None = None,
        evaluations_per_round: int = 16,
        pilot_evaluations: NonNegativeInt = 500,
        floor: float = 0.05,
        seed: NonNegativeInt = 0,
        pairs_per_call: PositiveInt = 512,
        control_variate: bool = True,
    ) -> None:
        super().__init__(seed, pairs_per_call, control_variate)
        if target_stderr <= 0.0:
            raise ValueError(f"target_stderr={target_stderr} must be positive")
        if enough < 0.0:
            raise ValueError(f"enough={enough} must not be negative")
        if evaluations_per_round < 4:
            raise ValueError(
                f"evaluations_per_round={evaluations_per_round}: at least 4 are needed, two for L_0 and "
                "two for L_t, to estimate the Monte Carlo error"
            )
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"floor={floor} must be inside (0, 1]")
        self.target_stderr = target_stderr
        self.enough = enough
        self.max_evaluations = max_evaluations
        self.evaluations_per_round = evaluations_per_round
        self.pilot_evaluations = pilot_evaluations
        self.floor = floor
        self.phase: Pilot | MainRound = Pilot()

    @property
    def name(self) -> str:
        """Name in the ledger."""
        rounds = max(1, self.rounds)
        return f"importance, {rounds} rounds of {self.evaluations_per_round} evaluations per example"

    @property
    def in_pilot(self) -> bool:
        """Whether the current pass is the pilot."""
        return isinstance(self.phase, Pilot)

    @property
    def rounds(self) -> int:
        """Number of rounds, including the current one; 0 during the pilot."""
        return 0 if isinstance(self.phase, Pilot) else self.phase.number

    def assign(self, index: Tensor, num_examples: int, chain: StepSequence) -> Assignment:
        """Draws in 2..K with the probabilities of this round, (B, R)."""
        if chain.num_steps == 1:  # there is no L_t
            return Assignment(torch.empty(len(index), 0).long(), torch.empty(len(index), 0).double())
        if isinstance(self.phase, Pilot):
            p = steps_by_logsnr(chain)[1:]
            p = p / p.sum()
            draws = max(1, round(self.pilot_evaluations / num_examples) - RECONSTRUCTION_DRAWS)
        else:
            p, draws = self.phase.probabilities, self.evaluations_per_round - RECONSTRUCTION_DRAWS
        u, shares = paired_stratified_draws(
            num_examples, draws, self.seed, f"importance steps, round {self.rounds}"
        )
        # rounding may leave the last cumulative value a little below 1
        drawn = torch.searchsorted(p.cumsum(0), u[index], right=True).clamp(max=len(p) - 1)
        return Assignment(drawn + 2, shares / p[drawn])

    def finish_round(self, accumulator: BoundAccumulator, unit: Unit) -> bool:
        """Continue after the pilot, then up to the planned round while ``max_evaluations`` allows it."""
        if isinstance(self.phase, Pilot):
            self.phase = MainRound(learned_probabilities(accumulator, self.floor))
            return True
        estimate = accumulator.estimate(self.phase.number)
        planned = self.phase.planned
        if planned is None:
            planned = self._rounds_needed(estimate, unit)
            self.phase = replace(self.phase, planned=planned)
        most = self.max_evaluations
        if most is None:
            most = accumulator.num_steps * estimate.num_examples
        next_total = estimate.num_evaluations + self.evaluations_per_round * estimate.num_examples
        if next_total > most or self.phase.number >= planned:
            return False
        self.phase = replace(self.phase, number=self.phase.number + 1)
        return True

    def shortfall(self, estimate: BoundEstimate, unit: Unit) -> str | None:
        """That ``max_evaluations`` was reached before the target."""
        if isinstance(self.phase, Pilot) or self.phase.number >= (self.phase.planned or 1):
            return None
        return f"target_stderr={self.target_stderr:g} was not reached: " + (
            "another round would cost more than every term of every example (estimator=full)"
            if self.max_evaluations is None
            else f"max_evaluations={self.max_evaluations:,}"
        )

    def _rounds_needed(self, estimate: BoundEstimate, unit: Unit) -> int:
        """From round 1; the Monte Carlo error falls with the root of the number of rounds."""
        total = estimate.total
        if total.mc_stderr is None or not (math.isfinite(total.mean) and math.isfinite(total.mc_stderr)):
            return 1  # further rounds would not change that
        target = self.target_stderr / unit.per_nat
        if total.data_stderr is not None and math.isfinite(total.data_stderr):
            target = max(target, self.enough * total.data_stderr)
        return max(1, math.ceil((total.mc_stderr / target) ** 2 - 1e-9))


def steps_by_logsnr(chain: StepSequence) -> Tensor:
    """Probabilities of steps 1..K for the pilot: half uniform, half by size in logsnr, (K,) float64.

    Where the error of eps_hat does not depend on t, L_t is proportional to the step in logsnr.
    """
    if chain.num_steps == 1:
        return torch.ones(1, dtype=torch.float64)
    size = -chain.level(torch.arange(1, chain.num_steps + 1)).logsnr.diff()
    finite = size[size.isfinite()]  # the last one is not if T has no signal
    size = size.nan_to_num(posinf=finite.max().item() if finite.numel() else 1.0)
    size = torch.cat([size[:1], size])  # the first step has no finite size: that of the second
    return 0.5 / len(size) + 0.5 * size / size.sum()


def learned_probabilities(accumulator: BoundAccumulator, floor: float) -> Tensor:
    """p(t) of steps 2..K, proportional to sqrt(E[L_t^2]), (K - 1,) float64 on the CPU."""
    if accumulator.num_steps == 1:  # there is no L_t
        return torch.empty(0, dtype=torch.float64)
    count, squares = (accumulator.sums[name][1:].cpu() for name in ("count", "squared_nats"))
    size = log_linear(count, squares, PILOT_DRAWS_PER_BIN).sqrt()
    return (1.0 - floor) * size / size.sum() + floor / len(size)
