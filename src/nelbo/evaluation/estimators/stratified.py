"""A few terms of each example, at timesteps spread evenly over the chain and over the data set.

The chain is divided into equal ranges. Each range is drawn from twice, independently, for every example (the
last one three times, if the number of draws is odd). Over the data set the draws have low discrepancy, as
those of VDM have over a batch (Kingma et al. 2021, appendix I.1), so the estimates of two examples are not
independent. Their spread gives an upper estimate of the standard error of the total. Its Monte Carlo part is
not known.
"""

from functools import lru_cache

import torch
from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, variance_of_sum
from nelbo.option_types import NonNegativeInt, PositiveInt
from nelbo.randomness import generator


class StratifiedEstimator(BoundEstimator):
    """L_0 of every example twice, L_t at two uniform timesteps in each of several equal ranges.

    Args:
        evaluations_per_example: network evaluations per example, two of them for L_0.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; at least one batch.

    Raises:
        ValueError: for fewer than 3 evaluations, which leave none for L_t.
    """

    def __init__(
        self, evaluations_per_example: int = 8, seed: NonNegativeInt = 0, pairs_per_call: PositiveInt = 512
    ) -> None:
        if evaluations_per_example < 3:
            raise ValueError(
                f"evaluations_per_example={evaluations_per_example}: at least 3 are needed, "
                "two for L_0 and one for L_t"
            )
        super().__init__(seed, pairs_per_call)
        self.evaluations_per_example = evaluations_per_example

    @property
    def name(self) -> str:
        """Name in the ledger."""
        return f"stratified, {self.evaluations_per_example} evaluations per example"

    def assign(self, index: Tensor, num_examples: int, chain: StepSequence) -> Assignment:
        """Draws in 2..K for every example, (B, R)."""
        K = chain.num_steps
        draws = self.evaluations_per_example - 2 if K > 1 else 0  # a chain of one step has no L_t
        u, shares = paired_spread(num_examples, draws, self.seed, "steps")
        steps = 2 + (u[index] * (K - 1)).long()
        return Assignment(steps, (K - 1) * shares.expand(steps.shape))

    def mc_variance(self, steps: Tensor, nats: Tensor, weighted: Tensor) -> None:
        """None, where (B,) nats^2 would be expected: the Monte Carlo part of the error is not known.

        Two draws of one range differ in their noise, and in L_t, which varies over the range. The second
        part cancels in the mean over the data set, whose draws cover each range evenly, but not in the
        difference of two draws: it overstated the Monte Carlo error 2.5 times (24 seeds).
        """
        return


def variance_over_ranges(weighted: Tensor) -> Tensor | None:
    """Variance of the sum of draws (B, R) that were made by :func:`paired_spread`, (B,).

    None for a single draw, whose variance is not known.
    """
    size = torch.bincount(ranges_of(weighted.shape[1])).tolist()
    variances = [variance_of_sum(part) for part in weighted.split(size, dim=1)]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(variances):
        return None
    return torch.stack(known).sum(0) if known else weighted.new_zeros(len(weighted))


def ranges_of(draws: int) -> Tensor:
    """Range of each draw, (draws,) int64: two draws per range, three in the last if the number is odd."""
    return (torch.arange(draws) // 2).clamp(max=max(draws // 2 - 1, 0))


def paired_spread(num_examples: int, draws: int, *key: int | str) -> tuple[Tensor, Tensor]:
    """Draws for each example, and the share of [0, 1) that each represents.

    Returns:
        (num_examples, draws) float64 in [0, 1), in the order of their ranges, the draws of one range
        independent of each other; and (draws,) float64, shares that add up to 1.
    """
    ranges = ranges_of(draws)
    size = torch.bincount(ranges)
    within = torch.arange(draws) - 2 * ranges  # first, second or third of its range
    columns = [
        spread(num_examples, len(size), *key, number)[:, ranges[within == number]] for number in range(3)
    ]
    order = torch.cat([(within == number).nonzero().flatten() for number in range(3)]).argsort()
    return torch.cat(columns, dim=1)[:, order], 1.0 / (len(size) * size[ranges].double())


@lru_cache(maxsize=4)
def spread(num_examples: int, draws: int, *key: int | str) -> Tensor:
    """(num_examples, draws) float64 in [0, 1): a draw in each of ``draws`` equal ranges for each example.

    Within each range the examples are spread evenly as well, in random order.
    """
    source = generator(*key, num_examples, draws)
    order = torch.rand(num_examples, draws, generator=source, dtype=torch.float32).argsort(dim=0)
    offset = torch.rand(draws, generator=source, dtype=torch.float64)
    within = (order + offset) / num_examples
    return ((torch.arange(draws) + within) / max(draws, 1)).clamp(max=1.0 - 2.0**-53)
