"""Evenly spaced in logsnr: every step changes the signal-to-noise ratio by the same factor.

The spacing of DPM-Solver (Lu et al. 2022, "DPM-Solver: a fast ODE solver").
"""

import torch
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
        return rounded(nearest.double(), schedule.T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """Equally spaced in logsnr from u = 0 to u = 1; (K,) float64."""
        ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr.detach()
        u = schedule.at_logsnr(grid(ends[0].item(), ends[1].item(), steps))
        u[-1] = 1.0
        if steps > 1:
            u[0] = 0.0
        return u
