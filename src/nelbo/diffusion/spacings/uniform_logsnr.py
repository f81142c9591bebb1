"""Evenly spaced in logsnr: every step changes the signal-to-noise ratio by the same factor.

The spacing of DPM-Solver (Lu et al. 2022, "DPM-Solver: a fast ODE solver").
"""

from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class UniformLogSNR(Spacing):
    """The timesteps nearest to equally spaced logsnr between the ends of the schedule."""

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """From 1 to T, (K,) int64.

        Raises:
            ValueError: for a schedule without signal at T.
        """
        table = schedule.table()
        if table[-1].isinf():
            raise ValueError(
                "spacing=uniform_logsnr: logsnr is -inf at T (zero terminal SNR): use spacing=even"
            )
        target = grid(table[0].item(), table[-1].item(), steps)
        nearest = (table[:, None] - target).abs().argmin(0) + 1
        return rounded(nearest.double(), schedule.num_steps)
