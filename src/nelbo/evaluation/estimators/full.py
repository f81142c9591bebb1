"""Every term of every example, and a few terms twice.

The evaluation of Improved DDPM's code (Nichol & Dhariwal 2021), with an estimate of its Monte Carlo error.
"""

import torch
from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator
from nelbo.evaluation.stratified_draws import stratified_draws

REPEATED = 8  # steps of each example that are drawn twice, for the Monte Carlo variance


class FullEstimator(BoundEstimator):
    """Every L_t of every example, L_0 twice, and L_t twice at up to eight steps.

    The difference of two draws of a term estimates its Monte Carlo variance. One step in each of eight equal
    ranges of the chain is repeated, a different one for each example; each of its two draws has weight 1/2.

    Args:
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; at least one batch.
        control_variate: subtract a control variate, see :class:`BoundEstimator`.
    """

    @property
    def name(self) -> str:
        """Name in the ledger."""
        return "full chain"

    def assign(self, index: Tensor, num_examples: int, chain: StepSequence) -> Assignment:
        """Steps 2..K for every example, followed by the repeated ones; (B, R)."""
        terms = chain.num_steps - 1
        every = torch.arange(2, chain.num_steps + 1).expand(len(index), -1)
        first, size = ranges(terms)
        u = stratified_draws(num_examples, len(size), self.seed, "repeated steps")[index]
        within = u * len(size) - torch.arange(len(size))  # position in its range, in [0, 1)
        repeated = 2 + first + (within * size).long().clamp(max=size - 1)
        weights = torch.ones(every.shape, dtype=torch.float64).scatter(1, repeated - 2, 0.5)
        halves = torch.full(repeated.shape, 0.5, dtype=torch.float64)
        return Assignment(torch.cat([every, repeated], dim=1), torch.cat([weights, halves], dim=1))

    def deviations(self, steps: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        """Scaled differences of the steps that are drawn twice, (B, M, V) nats.

        Half the squared difference of two draws is an unbiased estimate of the variance of one. It is taken
        for every term of the range, where the mean of the pair itself has half of it.
        """
        terms = steps.shape[1] - min(REPEATED, steps.shape[1] // 2)
        _, size = ranges(terms)
        first = values.take_along_dim(steps[:, terms:, None] - 2, dim=1)
        return (0.5 * (size.to(values) - 0.5)).sqrt().unsqueeze(1) * (first - values[:, terms:])


def ranges(terms: int) -> tuple[Tensor, Tensor]:
    """Starts and sizes of R <= 8 equal ranges of the terms, each (R,) int64."""
    number = min(REPEATED, terms)
    edges = torch.arange(number + 1) * terms // max(number, 1)
    return edges[:-1], edges.diff()
