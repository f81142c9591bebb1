"""Uniform timesteps, spread evenly over the batch (VDM, Kingma et al. 2021, appendix I.1)."""

import torch

from nelbo.diffusion.timesteps.base import TimestepSample, TimestepSampler, stratified_uniforms


class Stratified(TimestepSampler):
    """Every step equally likely, one from each of B equal ranges of steps."""

    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps and weights for a global batch, each (B,)."""
        u = stratified_uniforms(batch_size, generator)
        index = (u * self.num_steps).long() + 1
        return TimestepSample(index, torch.ones(batch_size, dtype=torch.float64))
