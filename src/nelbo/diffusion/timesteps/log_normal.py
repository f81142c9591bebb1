"""Timesteps whose noise level is log-normal (EDM, Karras et al. 2022, section 5).

ln sigma = -logsnr / 2 is normal. The probability of a step is that of the levels between its two ends; a
share ``floor`` of the draws is uniform, so that no weight exceeds 1 / floor.
"""

import math

import torch
from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.diffusion.timesteps.base import TimestepSample, TimestepSampler, draw_steps


class LogNormal(TimestepSampler):
    """p of a step proportional to the normal probability of its interval of ln sigma, with a uniform floor.

    Args:
        num_steps: K, the number of steps of the chain.
        chain: whose levels the probabilities follow, also where its schedule is learned.
        mean: P_mean, of ln sigma.
        std: P_std, of ln sigma.
        floor: share of uniform draws.

    Raises:
        ValueError: when ``std`` is not above 0 or ``floor`` is not inside (0, 1].
    """

    def __init__(
        self, num_steps: int, chain: StepSequence, mean: float = -1.2, std: float = 1.2, floor: float = 0.01
    ) -> None:
        if not std > 0.0:
            raise ValueError(f"timesteps.std={std} must be above 0")
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"timesteps.floor={floor} must be inside (0, 1]")
        super().__init__(num_steps)
        self.chain = chain
        self.mean = mean
        self.std = std
        self.floor = floor

    @property
    def probabilities(self) -> Tensor:
        """p of steps 1..K, (K,) float64. Step 1, whose interval has no clean end, has its uniform share."""
        with torch.no_grad():
            logsnr = self.chain.level(torch.arange(1, self.num_steps + 1)).logsnr
        below = 0.5 * torch.erfc((0.5 * logsnr + self.mean) / (self.std * math.sqrt(2.0)))  # of ln sigma
        size = below.diff(prepend=below[:1])
        uniform = torch.full_like(size, 1.0 / self.num_steps)
        if not size.sum() > 0.0:
            return uniform
        size = size / size.sum() * (1.0 - uniform[0])
        size[0] = uniform[0]
        return (1.0 - self.floor) * size + self.floor * uniform

    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps and weights for a global batch, each (B,)."""
        return draw_steps(self.probabilities, batch_size, generator)
