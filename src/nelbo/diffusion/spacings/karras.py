"""EDM's spacing (Karras et al. 2022, equation 5): even in sigma^(1/rho), sigma = noise / signal."""

import math

from torch import Tensor

from nelbo.diffusion.spacings.base import grid
from nelbo.diffusion.spacings.logsnr import LogSNRSpacing


class Karras(LogSNRSpacing):
    """Levels between the ends of the schedule, most of them clean.

    Args:
        rho: 1 is even in sigma; a larger one has more clean levels.

    Raises:
        ValueError: when ``rho`` is not above 0.
    """

    name = "karras"

    def __init__(self, rho: float = 7.0) -> None:
        if not rho > 0.0:
            raise ValueError(f"spacing.rho={rho} must be above 0")
        self.rho = rho

    def targets(self, clean: float, noisy: float, steps: int) -> Tensor:
        """Equally spaced in sigma^(1/rho), (K,) float64."""
        power = -0.5 / self.rho
        return grid(math.exp(power * clean), math.exp(power * noisy), steps).log() / power
