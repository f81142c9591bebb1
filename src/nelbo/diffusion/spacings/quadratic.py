"""Quadratic in the index, dense near the data (DDIM, Song et al. 2020, appendix D.2)."""

from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class Quadratic(Spacing):
    """t_i = 1 + (T - 1) ((i - 1) / (K - 1))^2, rounded. DDIM's formula does not include both ends."""

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """From 1 to T in increasing strides, (K,) int64."""
        T = schedule.T
        return rounded(1 + (T - 1) * grid(0, 1, steps).square(), T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """((i - 1) / (K - 1))^2 for i = 1..K; (K,) float64."""
        return grid(0.0, 1.0, steps).square()
