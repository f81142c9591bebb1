"""Uniform timesteps, spread evenly over the batch (VDM, Kingma et al. 2021, appendix I.1)."""

import torch

from nelbo.diffusion.timesteps.base import TimestepSample, TimestepSampler, stratified_uniforms


class Stratified(TimestepSampler):
    """Every step equally likely, one from each of B equal ranges of steps."""

    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps and weights for a global batch, each (B,)."""
        u = stratified_uniforms(batch_size, generator)
        position = u * self.num_steps
        index = position.long()
        return TimestepSample(index + 1, torch.ones(batch_size, dtype=torch.float64), position - index)
