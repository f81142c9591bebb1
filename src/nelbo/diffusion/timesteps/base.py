"""Timestep samplers: the steps of the chain that a batch is trained on, and their importance weights.

A sampler draws for the global batch from a generator that has the same state on all ranks; each rank uses its
rows. The timesteps therefore do not depend on the number of ranks.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimestepSample:
    """Steps of a batch.

    Attributes:
        index: (B,) int64 in 1..K, the step of the chain.
        weight: (B,) float64 importance weight 1 / (K p(index)), with which the mean of weight * f(index)
            is an unbiased estimate of the uniform mean of f.
        offset: (B,) float64 in [0, 1), the position in the bin of a chain in continuous time; uniform, unless
            its density is part of the weight.
    """

    index: Tensor
    weight: Tensor
    offset: Tensor


class TimestepSampler(ABC):
    """Draws steps 1..num_steps.

    Args:
        num_steps: K, the number of steps of the chain.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps for a global batch, on the CPU.

        Args:
            batch_size: of all ranks together.
            generator: a CPU generator, in the same state on every rank.
        """


class AdaptiveTimestepSampler(TimestepSampler):
    """A sampler whose probabilities depend on the losses so far."""

    @abstractmethod
    def update(self, index: Tensor, loss: Tensor, bound: Tensor) -> None:
        """Record the losses of a global batch.

        Args:
            index: (B,) steps, of all ranks.
            loss: (B,) the per-example loss at these steps, before weighting.
            bound: (B,) L_0 or L_t in nats.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The state to save in a checkpoint, a copy."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            ValueError: when the state is that of a sampler with other arguments.
        """


def stratified_uniforms(batch_size: int, generator: torch.Generator) -> Tensor:
    """(B,) float64 in [0, 1): one in each of B equal cells, in random order.

    All share one offset (the low-discrepancy sampler of VDM, Kingma et al. 2021, appendix I.1). Each number
    is uniform, so estimates are unbiased; the variance of their mean over the batch is reduced.
    """
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    order = torch.randperm(batch_size, generator=generator)
    return ((order + offset) / batch_size).clamp(max=1.0 - 2.0**-53)


def draw_steps(p: Tensor, batch_size: int, generator: torch.Generator) -> TimestepSample:
    """Steps with the probabilities p (K,), stratified over the batch, and their weights, each (B,)."""
    u = stratified_uniforms(batch_size, generator)
    # rounding may leave the last cumulative value a little below 1
    ends = p.cumsum(0)
    index = torch.searchsorted(ends, u, right=True).clamp(max=len(p) - 1)
    offset = (1.0 - (ends[index] - u) / p[index]).clamp(0.0, 1.0 - 2.0**-53)
    return TimestepSample(index + 1, 1.0 / (len(p) * p[index]), offset)
