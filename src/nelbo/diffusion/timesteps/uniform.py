"""Independent uniform timesteps (DDPM, Ho et al. 2020, algorithm 1)."""

import torch

from nelbo.diffusion.timesteps.base import TimestepSample, TimestepSampler


class Uniform(TimestepSampler):
    """Every step equally likely, drawn independently."""

    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps and weights for a global batch, each (B,)."""
        index = torch.randint(1, self.num_steps + 1, (batch_size,), generator=generator)
        offset = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        return TimestepSample(index, torch.ones(batch_size, dtype=torch.float64), offset)
