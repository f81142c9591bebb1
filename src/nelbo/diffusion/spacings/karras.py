"""EDM's spacing (Karras et al. 2022, equation 5): even in sigma^(1/rho), sigma = noise / signal."""

import torch
from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, grid, rounded


class Karras(Spacing):
    """Levels between the ends of the schedule, most of them clean.

    Args:
        rho: 1 is even in sigma; a larger one has more clean levels.

    Raises:
        ValueError: when ``rho`` is not above 0.
    """

    def __init__(self, rho: float = 7.0) -> None:
        if not rho > 0.0:
            raise ValueError(f"spacing.rho={rho} must be above 0")
        self.rho = rho

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The timesteps nearest to the levels in logsnr, (K,) int64.

        Raises:
            ValueError: for a schedule without signal at T.
        """
        table = schedule.table()
        target = self._logsnr(table[0], table[-1], steps)
        nearest = (table[:, None] - target).abs().argmin(0) + 1
        return rounded(nearest.double(), schedule.T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """From u = 0 to u = 1; (K,) float64."""
        ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr.detach()
        u = schedule.at_logsnr(self._logsnr(ends[0], ends[1], steps))
        u[-1] = 1.0
        if steps > 1:
            u[0] = 0.0
        return u

    def _logsnr(self, clean: Tensor, noisy: Tensor, steps: int) -> Tensor:
        """logsnr of K levels, from clean to noisy.

        Raises:
            ValueError: for a noisy end without signal.
        """
        if noisy.isinf():
            raise ValueError("spacing=karras: logsnr is -inf at T (zero terminal SNR): use spacing=even")
        power = -0.5 / self.rho
        roots = grid((power * clean).exp().item(), (power * noisy).exp().item(), steps)
        return roots.log() / power
