"""Heun's second-order method on the probability-flow ODE (EDM, Karras et al. 2022, algorithm 1).

In y = x / signal and sigma = noise / signal = exp(-logsnr / 2) the ODE is dy/dsigma = eps_hat. Euler's step
from t to s holds eps_hat still, which is DDIM's step; Heun's takes the mean of eps_hat at both ends:

    y_s = y_t + (sigma_s - sigma_t) (eps_hat_t + eps_hat_s) / 2

The mean is that of a straight line, and eps_hat is one only over steps that are short beside sigma. EDM
begins at sigma = 80, where they are. The cosine schedule ends at sigma = 20000, and the level before that in
a chain of 50 steps is at 32: over such a step the mean is wrong by far. So from levels beyond ``sigma_max``
the steps are Euler's, which are nearly exact there, for eps_hat is x_t to within (size of data / sigma)^2.

EDM's churn is left out: it evaluates the network at levels between those of the schedule, which a network
that is told the timestep has never seen.
"""

import math

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, Step, scale
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.clipping import Clip
from nelbo.diffusion.samplers.state import SamplerState


class Heun(Sampler):
    """Euler's step, and a second evaluation of the network at its end; Euler's alone for the step to data.

    K steps are 2 K - 1 evaluations, less one for every level but the cleanest that is beyond ``sigma_max``.

    Args:
        sigma_max: the noisiest noise / signal that a step of second order starts from; None for any.
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.

    Raises:
        ValueError: when ``sigma_max`` is not above 0.
    """

    is_random = False

    def __init__(
        self,
        sigma_max: float | None = 80.0,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if sigma_max is not None and not sigma_max > 0.0:
            raise ValueError(f"sampler.sigma_max={sigma_max} must be above 0, or null")
        super().__init__(steps, clip, dynamic_clip, data_range)
        self.sigma_max = math.inf if sigma_max is None else sigma_max

    def step(
        self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, state: SamplerState
    ) -> Tensor:
        """x_s from x_t, (B, ...)."""
        euler = diffuse(prediction.x0_hat, prediction.eps_hat, step.s)
        if state.index == 1 or (sigma(step.t) > self.sigma_max).all():
            return euler
        change = state.predict(euler, step.s).eps_hat - prediction.eps_hat
        return euler + scale(0.5 * step.s.signal_scale * (sigma(step.s) - sigma(step.t)), change)

    def evaluations(self, chain: Chain) -> int:
        """How often the network is evaluated for one sample."""
        twice = sigma(chain.level(torch.arange(2, chain.num_steps + 1))) <= self.sigma_max
        return chain.num_steps + int(twice.sum())


def sigma(level: NoiseLevel) -> Tensor:
    """noise_scale / signal_scale, the noise level of EDM; shape of ``level.logsnr``."""
    return (-0.5 * level.logsnr).exp()
