"""DDIM (Song, Meng & Ermon 2020, equations 12 and 16)."""

import torch
from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step, scale
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.clipping import Clip
from nelbo.diffusion.samplers.state import SamplerState


class DDIM(Sampler):
    """x_s = signal_s x0_hat + sqrt(noise_s^2 - sigma^2) eps_hat + sigma noise, sigma^2 = eta^2 beta-tilde.

    Args:
        eta: 0 is deterministic, 1 is ancestral sampling with the posterior's variance.
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.

    Raises:
        ValueError: when ``eta`` is not inside [0, 1].
    """

    def __init__(
        self,
        eta: float = 0.0,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"sampler.eta={eta} must be inside [0, 1]")
        super().__init__(steps, clip, dynamic_clip, data_range)
        self.eta = eta
        self.is_random = eta > 0.0

    def step(
        self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, state: SamplerState
    ) -> Tensor:
        """x_s from x_t, (B, ...)."""
        sigma = self.eta * (0.5 * step.log_beta_tilde).exp()
        # noise_s^2 - sigma^2 = noise_s^2 (1 - eta^2 c), which is 0 and not below for eta = c = 1
        kept = step.s.noise_scale * torch.sqrt(1.0 - self.eta**2 * step.step_noise_fraction)
        return (
            scale(step.s.signal_scale, prediction.x0_hat)
            + scale(kept, prediction.eps_hat)
            + scale(sigma, noise)
        )
