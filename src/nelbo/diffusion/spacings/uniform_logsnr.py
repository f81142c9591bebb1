"""Evenly spaced in logsnr: every step changes the signal-to-noise ratio by the same factor.

The spacing of DPM-Solver (Lu et al. 2022, "DPM-Solver: a fast ODE solver").
"""

from torch import Tensor

from nelbo.diffusion.spacings.base import grid
from nelbo.diffusion.spacings.logsnr import LogSNRSpacing


class UniformLogSNR(LogSNRSpacing):
    """The levels nearest to equally spaced logsnr between the ends of the schedule."""

    name = "uniform_logsnr"

    def targets(self, clean: float, noisy: float, steps: int) -> Tensor:
        """Equally spaced in logsnr, (K,) float64."""
        return grid(clean, noisy, steps)
