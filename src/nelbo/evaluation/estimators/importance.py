"""Timesteps in proportion to the size of their terms: the same error bar for far fewer evaluations.

A first round, the pilot, draws a few timesteps and estimates sqrt(E[L_t^2]) along the chain. All rounds
after it draw t with p(t) proportional to that (and a uniform floor), one draw in each of R ranges of equal
probability for every example, and weigh a draw by 1 / (R p(t)). Given the pilot, which is not used again,
every round is unbiased; rounds go on until chance adds no more than ``target_stderr`` to the error.
"""

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, first_two
from nelbo.evaluation.estimators.stratified import spread
from nelbo.evaluation.tally import BoundTally, StepTable
from nelbo.evaluation.units import Unit

PILOT_DRAWS_PER_BIN = 8


class Importance(BoundEstimator):
    """Stratified importance sampling of timesteps, over the whole data set in every round.

    Args:
        target_stderr: Monte-Carlo standard error to reach, in the unit of the bound (bits/dim or nats). The
            part of the error that comes from the data set being a sample is reported, and cannot be reduced.
        max_evaluations: network evaluations after which no further round begins, the pilot included.
        evaluations_per_round: per example, two of them for L_0.
        pilot_evaluations: of the whole pilot, at least three per example.
        floor: share of uniform draws.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network.

    Raises:
        ValueError: for an argument that is out of range.
    """

    needs_rounds = True

    def __init__(
        self,
        target_stderr: float = 0.005,
        max_evaluations: int = 10_000_000,
        evaluations_per_round: int = 8,
        pilot_evaluations: int = 1000,
        floor: float = 0.05,
        seed: int = 0,
        pairs_per_call: int = 512,
    ) -> None:
        super().__init__(seed, pairs_per_call)
        if target_stderr <= 0.0:
            raise ValueError(f"target_stderr={target_stderr} must be positive")
        if evaluations_per_round < 4:
            raise ValueError(
                f"evaluations_per_round={evaluations_per_round}: at least 4 are needed, two for L_0 and "
                "two for L_t, between which chance shows"
            )
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"floor={floor} must be inside (0, 1]")
        self.target_stderr = target_stderr
        self.max_evaluations = max_evaluations
        self.evaluations_per_round = evaluations_per_round
        self.pilot_evaluations = pilot_evaluations
        self.floor = floor
        self.probabilities: Tensor | None = None  # (K-1,) of steps 2..K, once the pilot is done
        self._rounds = 1

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"importance, {self._rounds} rounds of {self.evaluations_per_round} evaluations per example"

    @property
    def rounds(self) -> int:
        """Rounds that the tally holds so far; 0 during the pilot."""
        return self._rounds if self.probabilities is not None else 0

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Draws in 2..K with the probabilities of this round."""
        if chain.num_steps == 1:  # there is no L_t
            return first_two(torch.empty(len(index), 0).long(), torch.empty(len(index), 0).double())
        if self.probabilities is None:
            p, draws = pilot_probabilities(chain), max(1, round(self.pilot_evaluations / num_examples) - 2)
        else:
            p, draws = self.probabilities, self.evaluations_per_round - 2
        u = spread(num_examples, draws, self.seed, f"importance steps, round {self.rounds}")[index]
        # rounding may leave the last cumulated value a little below 1
        drawn = torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=len(p) - 1)
        return first_two(drawn + 2, 1.0 / (draws * p[drawn]))

    def again(self, tally: BoundTally, unit: Unit) -> bool:
        """After the pilot always; then while chance adds more than the target and the budget allows."""
        if self.probabilities is None:
            self.probabilities = learned_probabilities(tally.step_table(), self.floor)
            tally.forget_estimates()
            return True
        estimate = tally.estimate(self._rounds)
        per_round = estimate.num_evaluations / (self._rounds + 1)
        too_much = estimate.num_evaluations + per_round > self.max_evaluations
        if estimate.total.monte_carlo * unit.per_nat <= self.target_stderr or too_much:
            return False
        self._rounds += 1
        return True


def pilot_probabilities(chain: Chain) -> Tensor:
    """Before anything is known: half uniform in t, half in proportion to the steps in logsnr, (K-1,).

    With an error of the noise that does not depend on t, L_t is in proportion to the step in logsnr.
    """
    step = -chain.level(chain.timesteps().new_tensor(range(1, chain.num_steps + 1))).logsnr.diff()
    return 0.5 / len(step) + 0.5 * step / step.sum()


def learned_probabilities(table: StepTable, floor: float) -> Tensor:
    """p of steps 2..K in proportion to sqrt(E[L^2]), (K-1,): log-linear between bins of equal count."""
    count, squares = table.count[1:], table.sum_of_squares[1:]
    num_bins = max(1, int(count.sum()) // PILOT_DRAWS_PER_BIN)
    edges = count.cumsum(0) - 0.5 * count
    bins = (edges / count.sum() * num_bins).long().clamp(max=num_bins - 1)
    position = torch.arange(len(count), dtype=torch.float64)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, values)

    drawn = total(count) > 0
    rms = (total(squares)[drawn] / total(count)[drawn]).clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    centre = total(count * position)[drawn] / total(count)[drawn]
    size = interpolate(position, centre, rms.log()).exp()
    return (1.0 - floor) * size / size.sum() + floor / max(len(size), 1)


def interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise-linear through (xs, ys), constant beyond the ends; xs increasing."""
    if len(xs) == 1:
        return ys.expand_as(x)
    right = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    share = ((x - xs[right - 1]) / (xs[right] - xs[right - 1])).clamp(0.0, 1.0)
    return torch.lerp(ys[right - 1], ys[right], share)
