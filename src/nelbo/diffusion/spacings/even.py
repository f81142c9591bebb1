"""Evenly spaced over 1..T, including both ends (Improved DDPM, Nichol & Dhariwal 2021, section 4)."""

from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class Even(Spacing):
    """K evenly spaced real numbers from 1 to T, rounded."""

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """1, 1 + (T-1)/(K-1), ..., T, rounded; (K,) int64."""
        T = schedule.T
        return rounded(grid(1, T, steps), T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """0, 1/(K-1), ..., 1; (K,) float64."""
        return grid(0.0, 1.0, steps)
