"""EDM's preconditioning (Karras et al. 2022, table 1), for x_t = signal x_0 + noise eps.

With y = x_t / signal and sigma = noise / signal it is D = c_skip y + c_out F(c_in y) with

    c_skip = sd^2 / (sigma^2 + sd^2)
    c_out  = sigma sd / sqrt(sigma^2 + sd^2)
    c_in   = 1 / sqrt(sigma^2 + sd^2)

where sd is ``sigma_data``. Written in signal and noise every coefficient is finite at all levels.
"""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel, scale
from nelbo.diffusion.parameterizations.base import LinearParameterization


class EDM(LinearParameterization):
    """The network receives inputs, and predicts outputs, of variance 1.

    Args:
        sigma_data: standard deviation of the data; 0.5 for images in [-1, 1], as published.

    Raises:
        ValueError: when ``sigma_data`` is not above 0.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"parameterization.sigma_data={sigma_data} must be above 0")
        self.sigma_data = sigma_data

    def variance(self, level: NoiseLevel) -> Tensor:
        """Variance of x_t for data of variance ``sigma_data``^2: signal^2 sd^2 + noise^2, (B,)."""
        return level.signal_scale.square() * self.sigma_data**2 + level.noise_scale.square()

    def c_in(self, level: NoiseLevel) -> Tensor:
        """1 / sqrt(variance of x_t), (B,)."""
        return self.variance(level).rsqrt()

    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(signal sd^2 / variance, noise sd / sqrt(variance)), each (B,)."""
        variance = self.variance(level)
        skip = level.signal_scale * self.sigma_data**2 / variance
        return skip, level.noise_scale * self.sigma_data * variance.rsqrt()

    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(noise / variance, -signal sd / sqrt(variance)), each (B,)."""
        variance = self.variance(level)
        return level.noise_scale / variance, -level.signal_scale * self.sigma_data * variance.rsqrt()

    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """(noise x_0 - signal sd^2 eps) / (sd sqrt(variance)), (B, ...)."""
        scaled = scale(level.noise_scale, x0) - scale(level.signal_scale * self.sigma_data**2, eps)
        return scale(self.variance(level).rsqrt() / self.sigma_data, scaled)
