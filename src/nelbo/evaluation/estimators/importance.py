"""Timesteps in proportion to the size of their terms: the same error bar for far fewer evaluations.

A first round, the pilot, draws a few timesteps and estimates sqrt(E[L_t^2]) along the chain. All rounds
after it draw t with p(t) proportional to that (and a uniform floor), as Improved DDPM does in training
(Nichol & Dhariwal 2021, section 3.3): twice in each of R / 2 ranges of equal probability for every example,
and weigh a draw by 1 / (R p(t)). Given the pilot, which is not used again, every round is unbiased. How many
rounds there are is decided after the first, from its errors alone: so many that chance adds no more than
``target_stderr``, or hardly shows beside the error that the data set has.
"""

import math

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate, StepTable
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, first_two
from nelbo.evaluation.estimators.stratified import paired_spread, variance_over_ranges
from nelbo.evaluation.log_linear import log_linear
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

PILOT_DRAWS_PER_BIN = 8


class ImportanceEstimator(BoundEstimator):
    """Stratified importance sampling of timesteps, over the whole data set in every round.

    Args:
        target_stderr: Monte-Carlo standard error to reach, in the unit of the bound (bits/dim or nats). The
            part of the error that comes from the data set being a sample is reported, and cannot be reduced.
        enough: rounds end as well when chance is this fraction of the data set's part, beside which it then
            does not show.
        max_evaluations: network evaluations after which no further round begins, the pilot included; None:
            as many as all terms of all examples.
        evaluations_per_round: per example, two of them for L_0.
        pilot_evaluations: of the whole pilot, at least three per example.
        floor: share of uniform draws.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; a batch at least.

    Raises:
        ValueError: for an argument that is out of range.
    """

    needs_rounds = True

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
    ) -> None:
        super().__init__(seed, pairs_per_call)
        if target_stderr <= 0.0:
            raise ValueError(f"target_stderr={target_stderr} must be positive")
        if enough < 0.0:
            raise ValueError(f"enough={enough} must not be negative")
        if evaluations_per_round < 4:
            raise ValueError(
                f"evaluations_per_round={evaluations_per_round}: at least 4 are needed, two for L_0 and "
                "two for L_t, between which chance shows"
            )
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"floor={floor} must be inside (0, 1]")
        self.target_stderr = target_stderr
        self.enough = enough
        self.max_evaluations = max_evaluations
        self.evaluations_per_round = evaluations_per_round
        self.pilot_evaluations = pilot_evaluations
        self.floor = floor
        self.probabilities: Tensor | None = None  # (K-1,) of steps 2..K, once the pilot is done
        self._rounds = self._planned = 1

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"importance, {self._rounds} rounds of {self.evaluations_per_round} evaluations per example"

    @property
    def rounds(self) -> int:
        """Rounds of the measurement so far, this one included; 0 during the pilot."""
        return self._rounds if self.probabilities is not None else 0

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Draws in 2..K with the probabilities of this round."""
        if chain.num_steps == 1:  # there is no L_t
            return first_two(torch.empty(len(index), 0).long(), torch.empty(len(index), 0).double())
        if self.probabilities is None:
            p = steps_by_logsnr(chain)[1:]
            p, draws = p / p.sum(), max(1, round(self.pilot_evaluations / num_examples) - 2)
        else:
            p, draws = self.probabilities, self.evaluations_per_round - 2
        u, shares = paired_spread(num_examples, draws, self.seed, f"importance steps, round {self.rounds}")
        # rounding may leave the last cumulated value a little below 1
        drawn = torch.searchsorted(p.cumsum(0), u[index], right=True).clamp(max=len(p) - 1)
        return first_two(drawn + 2, shares / p[drawn])

    def chance(self, steps: Tensor, nats: Tensor, weighted: Tensor) -> Tensor:
        """How far draws of the same range lie apart, (B,)."""
        return variance_over_ranges(weighted)

    def again(self, accumulator: BoundAccumulator, unit: Unit) -> bool:
        """After the pilot always; then while chance adds more than the target and the budget allows."""
        if self.probabilities is None:
            self.probabilities = learned_probabilities(accumulator.step_table(), self.floor)
            return True
        estimate = accumulator.estimate(self._rounds)
        most = self.max_evaluations
        if most is None:
            most = accumulator.num_steps * estimate.num_examples
        per_round = self.evaluations_per_round * estimate.num_examples
        too_much = estimate.num_evaluations + per_round > most
        if self._rounds == 1:
            self._planned = self._rounds_needed(estimate, unit)
        if too_much or self._rounds >= self._planned:
            return False
        self._rounds += 1
        return True

    def shortfall(self, estimate: BoundEstimate, unit: Unit) -> str | None:
        """That evaluations ran out before the target was reached."""
        if self._rounds >= self._planned:
            return None
        return f"target_stderr={self.target_stderr:g} was not reached: " + (
            "all terms of all examples would cost no more"
            if self.max_evaluations is None
            else f"max_evaluations={self.max_evaluations:,}"
        )

    def _rounds_needed(self, estimate: BoundEstimate, unit: Unit) -> int:
        """From one round; chance falls with the root of their number."""
        total = estimate.total
        if not math.isfinite(total.mean) or math.isnan(total.monte_carlo):
            return 1  # more of the same would not help
        wanted = self.target_stderr / unit.per_nat
        if math.isfinite(total.data_set):
            wanted = max(wanted, self.enough * total.data_set)
        return max(1, math.ceil((total.monte_carlo / wanted) ** 2 - 1e-9))


def steps_by_logsnr(chain: Chain) -> Tensor:
    """Probabilities of steps 1..K before anything is known: half uniform, half by size in logsnr, (K,).

    With an error of the noise that does not depend on t, L_t is in proportion to the step in logsnr.
    """
    if chain.num_steps == 1:
        return torch.ones(1, dtype=torch.float64)
    size = -chain.level(torch.arange(1, chain.num_steps + 1)).logsnr.diff()
    finite = size[size.isfinite()]  # the last is not where T has no signal
    size = size.nan_to_num(posinf=finite.max().item() if finite.numel() else 1.0)
    size = torch.cat([size[:1], size])  # the first step has no end; it counts as much as the second
    return 0.5 / len(size) + 0.5 * size / size.sum()


def learned_probabilities(table: StepTable, floor: float) -> Tensor:
    """p of steps 2..K in proportion to sqrt(E[L^2]), (K - 1,)."""
    size = log_linear(table.count[1:], table.sum_of_squares[1:], PILOT_DRAWS_PER_BIN).sqrt()
    return (1.0 - floor) * size / size.sum() + floor / max(len(size), 1)
