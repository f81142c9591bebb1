"""Rectified flow (Liu et al. 2023, equation 1; Lipman et al. 2023): the network predicts eps - x0.

The interpolation (1 - w) x_0 + w eps is x_t / (signal + noise), with w = noise / (signal + noise).
"""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.parameterizations.base import LinearParameterization


class Flow(LinearParameterization):
    """net(x_t / (signal + noise)) = eps - x0, the velocity of the interpolation."""

    def c_in(self, level: NoiseLevel) -> Tensor:
        """1 / (signal + noise), (B,)."""
        return 1.0 / (level.signal_scale + level.noise_scale)

    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(1, -noise) / (signal + noise), each (B,)."""
        c_in = self.c_in(level)
        return c_in, -level.noise_scale * c_in

    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(1, signal) / (signal + noise), each (B,)."""
        c_in = self.c_in(level)
        return c_in, level.signal_scale * c_in

    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """``eps - x0``, (B, ...)."""
        return eps - x0
