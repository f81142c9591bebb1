"""Evenly in logsnr: every step removes the same factor of the signal-to-noise ratio.

The steps that DPM-Solver takes (Lu et al. 2022, "DPM-Solver: a fast ODE solver").
"""

from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class UniformLogSNR(Spacing):
    """The timesteps that are nearest to equally spaced logsnr between the schedule's ends."""

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
        wanted = grid(table[0].item(), table[-1].item(), steps)
        nearest = (table[:, None] - wanted).abs().argmin(0) + 1
        return rounded(nearest.double(), schedule.num_steps)
