"""The cost of every possible step of a chain in nats, to compare chains without evaluating a network.

The bound of a chain is a sum over neighbouring levels: L_0 for the cleanest level, a KL for every pair of
neighbours, and L_T for the noisiest level. The network's prediction at x_t does not depend on the other end
of the step, so one evaluation at t gives the costs of the steps from t to every cleaner level (Watson et al.
2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepCostTable:
    """Expected terms of the bound, float64 in nats per example, for the T levels of a full chain.

    Attributes:
        timesteps: (T,) int64 1..T, the timestep of each level; row and column i belong to timesteps[i].
        first: (T, T + 1), L_0 of a chain whose cleanest level is i and whose second is j; in the last
            column, of the chain of level i only. +inf where j <= i.
        step: (T, T), KL of the step from level j to the cleaner level i; +inf where j <= i.
        prior: (T,), L_T of a chain whose noisiest level is j.
    """

    timesteps: Tensor
    first: Tensor
    step: Tensor
    prior: Tensor

    def total(self, timesteps: Tensor) -> float:
        """The expected bound of a chain, nats per example.

        Args:
            timesteps: (K,) int64 of the chain, strictly increasing, from ``self.timesteps``.
        """
        level = torch.searchsorted(self.timesteps, timesteps)
        second = level[1] if len(level) > 1 else -1
        steps = self.step[level[:-1], level[1:]]
        return (self.first[level[0], second] + steps.sum() + self.prior[level[-1]]).item()
