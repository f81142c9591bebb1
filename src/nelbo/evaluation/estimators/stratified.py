"""A few terms of each example, at timesteps spread evenly over the chain and over the data set."""

from functools import lru_cache

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, first_two
from nelbo.randomness import generator


class Stratified(BoundEstimator):
    """L_0 of every example twice, L_t at one uniform timestep in each of several equal ranges.

    Args:
        evaluations_per_example: network evaluations per example, two of them for L_0.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network.

    Raises:
        ValueError: for fewer than 3 evaluations, which leave none for L_t.
    """

    def __init__(self, evaluations_per_example: int = 8, seed: int = 0, pairs_per_call: int = 512) -> None:
        if evaluations_per_example < 3:
            raise ValueError(
                f"evaluations_per_example={evaluations_per_example}: at least 3 are needed, "
                "two for L_0 and one for L_t"
            )
        super().__init__(seed, pairs_per_call)
        self.evaluations_per_example = evaluations_per_example

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"stratified, {self.evaluations_per_example} evaluations per example"

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Draws in 2..K that share the K - 1 denoising terms among them."""
        K = chain.num_steps
        draws = self.evaluations_per_example - 2 if K > 1 else 0  # a chain of one step has no L_t
        u = spread(num_examples, draws, self.seed, "steps")[index]
        steps = 2 + (u * (K - 1)).long()
        return first_two(steps, torch.full(steps.shape, (K - 1) / max(draws, 1), dtype=torch.float64))


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
