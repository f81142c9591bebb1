"""The network predicts the data (DDPM, Ho et al. 2020, section 3.2)."""

import torch
from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.parameterizations.base import LinearParameterization


class X0(LinearParameterization):
    """net(x_t) = x0_hat."""

    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(0, 1), each (B,)."""
        return torch.zeros_like(level.logsnr), torch.ones_like(level.logsnr)

    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(1 / noise, -signal / noise), each (B,)."""
        return 1.0 / level.noise_scale, -(0.5 * level.logsnr).exp()

    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """``x0``, (B, ...)."""
        return x0
