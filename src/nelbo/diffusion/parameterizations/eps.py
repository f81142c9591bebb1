"""The network predicts the noise (DDPM, Ho et al. 2020, equation 11)."""

import torch
from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.parameterizations.base import LinearParameterization


class Eps(LinearParameterization):
    """net(x_t) = eps, so x0_hat = (x_t - noise net) / signal."""

    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(1 / signal, -noise / signal), each (B,)."""
        return 1.0 / level.signal_scale, -(-0.5 * level.logsnr).exp()

    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(0, 1), each (B,)."""
        return torch.zeros_like(level.logsnr), torch.ones_like(level.logsnr)

    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """``eps``, (B, ...)."""
        return eps
