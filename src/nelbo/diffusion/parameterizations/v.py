"""The network predicts v = signal eps - noise x0 (Salimans & Ho 2022, section 4)."""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel, scale
from nelbo.diffusion.parameterizations.base import LinearParameterization


class V(LinearParameterization):
    """net(x_t) = v, so x0_hat = signal x_t - noise net."""

    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(signal, -noise), each (B,)."""
        return level.signal_scale, -level.noise_scale

    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(noise, signal), each (B,)."""
        return level.noise_scale, level.signal_scale

    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """signal eps - noise x0, (B, ...)."""
        return scale(level.signal_scale, eps) - scale(level.noise_scale, x0)
