"""Every term of every example: the whole chain, K network evaluations per example."""

import torch
from torch import Tensor

from nelbo.evaluation.estimators.base import Assignment, BoundEstimator


class Full(BoundEstimator):
    """L_0 and every L_t of every example, one draw of noise each.

    Args:
        seed: of the noise.
        pairs_per_call: pairs of example and timestep in one call of the network.
    """

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return "full chain"

    def assign(self, index: Tensor, num_examples: int, K: int) -> Assignment:
        """Steps 1..K for every example, weight 1."""
        steps = torch.arange(1, K + 1).expand(len(index), K)
        return Assignment(steps, torch.ones(len(index), K, dtype=torch.float64))
