"""Heun's second-order method on the probability-flow ODE (EDM, Karras et al. 2022, algorithm 1).

In y = x / signal and sigma = noise / signal = exp(-logsnr / 2) the ODE is dy/dsigma = eps_hat. Euler's step
from t to s keeps eps_hat constant, which is DDIM's step; Heun's uses the mean of eps_hat at both ends:

    y_s = y_t + (sigma_s - sigma_t) (eps_hat_t + eps_hat_s) / 2

The mean is accurate if eps_hat is nearly linear over the step, that is for steps short compared with sigma.
EDM starts at sigma = 80, where this holds. The cosine schedule ends at sigma = 20000, and the next level of a
chain of 50 steps is at 32: over such a step the mean is far off. Steps from levels above ``sigma_max`` are
therefore Euler's, which are nearly exact there: eps_hat equals x_t up to (scale of the data / sigma)^2.
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
    """Heun's step, with a second network evaluation at the end of Euler's; Euler's for the step to data.

    K steps need 2 K - 1 evaluations, one less for every level above ``sigma_max`` except the cleanest.

    Args:
        sigma_max: largest noise / signal from which a step is of second order; None for no limit. A step from
            a level without signal is Euler's.
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
        if state.index == 1 or not self._is_second_order(step).any():
            return euler
        change = state.predict(euler, step.s).eps_hat - prediction.eps_hat
        return euler + scale(0.5 * step.s.signal_scale * (sigma(step.s) - sigma(step.t)), change)

    def evaluations(self, chain: Chain) -> int:
        """Number of network evaluations per sample."""
        index = torch.arange(2, chain.num_steps + 1)
        none = torch.zeros(len(index))
        _, steps = self.perturb(none, chain.step(index), none, chain)
        return chain.num_steps + int(self._is_second_order(steps).sum())

    def _is_second_order(self, step: Step) -> Tensor:
        # (B,) bool; a level at sigma_max may be above it by rounding
        at = sigma(step.t)  # infinite for a level without signal
        return at.isfinite() & (at <= self.sigma_max * (1.0 + 1e-9))


def sigma(level: NoiseLevel) -> Tensor:
    """noise_scale / signal_scale, EDM's noise level; shape of ``level.logsnr``."""
    return (-0.5 * level.logsnr).exp()
