"""Strides of T/K that end at T.

The name is that of Lin et al. 2023 ("Common diffusion noise schedules and sample steps are flawed", section
3.3).
"""

from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class Trailing(Spacing):
    """Every (T/K)-th timestep, ending at T."""

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """T/K, 2T/K, ..., T, rounded; (K,) int64."""
        T = schedule.T
        return rounded(grid(T / steps, T, steps), T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """1/K, 2/K, ..., 1; (K,) float64."""
        return grid(1.0 / steps, 1.0, steps)
