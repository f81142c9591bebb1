"""Ancestral sampling from the reverse process (DDPM, Ho et al. 2020, algorithm 2)."""

from dataclasses import replace

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step, per_example
from nelbo.diffusion.process import posterior
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.state import SamplerState


class Ancestral(Sampler):
    """x_s ~ N(posterior mean at x0_hat, reverse variance); no noise is added at the last step.

    Args:
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.
    """

    def step(
        self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, state: SamplerState
    ) -> Tensor:
        """x_s from x_t, (B, ...)."""
        reverse = replace(posterior(prediction.x0_hat, xt, step), log_var=prediction.log_var(step))
        return reverse.mean.where(per_example(step.is_first, xt), reverse.sample(noise))
