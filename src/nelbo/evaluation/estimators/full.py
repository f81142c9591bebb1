"""Every term of every example: the whole chain, and a few of its terms twice.

As Improved DDPM's code evaluates a model (Nichol & Dhariwal 2021), and with an error bar of its noise.
"""

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, first_two
from nelbo.evaluation.estimators.stratified import spread

REPEATED = 8  # steps of each example, from which chance is told


class FullEstimator(BoundEstimator):
    """Every L_t of every example, L_0 twice, and L_t twice at up to eight steps.

    A term that was drawn twice shows how much of it is chance. One step in each of eight equal ranges of the
    chain is repeated, another one for each example, and its terms count half.

    Args:
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; a batch at least.
    """

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return "full chain"

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Steps 2..K for every example, and then those that are repeated."""
        terms = chain.num_steps - 1
        every = torch.arange(2, chain.num_steps + 1).expand(len(index), -1)
        first, size = ranges(terms)
        u = spread(num_examples, len(size), self.seed, "repeated steps")[index]
        within = u * len(size) - torch.arange(len(size))  # where in its range, in [0, 1)
        repeated = 2 + first + (within * size).long().clamp(max=size - 1)
        weights = torch.ones(every.shape, dtype=torch.float64).scatter(1, repeated - 2, 0.5)
        halves = torch.full(repeated.shape, 0.5, dtype=torch.float64)
        return first_two(torch.cat([every, repeated], dim=1), torch.cat([weights, halves], dim=1))

    def chance(self, steps: Tensor, nats: Tensor, weighted: Tensor) -> Tensor:
        """Half the squared difference of two draws is the variance of one, unbiased; (B,).

        Each pair stands for its range of the chain, in which it counts half itself.
        """
        terms = steps.shape[1] - min(REPEATED, steps.shape[1] // 2)
        _, size = ranges(terms)
        first = nats.gather(1, steps[:, terms:] - 2)
        variance = 0.5 * (first - nats[:, terms:]).square()
        return (variance * (size.to(nats.device) - 0.5)).sum(1)


def ranges(terms: int) -> tuple[Tensor, Tensor]:
    """Where each of R <= 8 ranges of so many terms begins, and how many terms it has; each (R,) int64."""
    number = min(REPEATED, terms)
    edges = torch.arange(number + 1) * terms // max(number, 1)
    return edges[:-1], edges.diff()
