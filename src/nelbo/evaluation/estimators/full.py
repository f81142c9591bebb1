"""Every term of every example: the whole chain, K + 1 network evaluations per example."""

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator, first_two


class Full(BoundEstimator):
    """Every L_t of every example once, and L_0 twice.

    Args:
        seed: of the noise.
        pairs_per_call: pairs of example and timestep in one call of the network.
    """

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return "full chain"

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Steps 2..K for every example, weight 1."""
        steps = torch.arange(2, chain.num_steps + 1).expand(len(index), -1)
        return first_two(steps, torch.ones(steps.shape, dtype=torch.float64))
