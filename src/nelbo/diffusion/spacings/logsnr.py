"""Spacings by noise level, as in DPM-Solver (Lu et al. 2022) and EDM (Karras et al. 2022)."""

from abc import abstractmethod

import torch
from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing, rounded


class LogSNRSpacing(Spacing):
    """Levels between the ends of the schedule.

    Attributes:
        name: of the choice, for messages.
    """

    name: str

    @abstractmethod
    def targets(self, clean: float, noisy: float, steps: int) -> Tensor:
        """logsnr of K levels, from ``clean`` to ``noisy``, (K,) float64."""

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The timesteps nearest to the levels in logsnr, from 1 to T, (K,) int64.

        Raises:
            ValueError: for a schedule without signal at T.
        """
        table = schedule.table()
        target = self._between(table[[0, -1]], steps)
        nearest = (table[:, None] - target).abs().argmin(0) + 1
        return rounded(nearest.double(), schedule.T)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """From u = 0 to u = 1; (K,) float64.

        Raises:
            ValueError: for a schedule without signal at u = 1.
        """
        ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr.detach()
        u = schedule.at_logsnr(self._between(ends, steps))
        u[-1] = 1.0
        if steps > 1:
            u[0] = 0.0
        return u

    def _between(self, ends: Tensor, steps: int) -> Tensor:
        if ends[1].isinf():
            raise ValueError(
                f"spacing={self.name}: logsnr is -inf at T (zero terminal SNR): use spacing=even"
            )
        return self.targets(ends[0].item(), ends[1].item(), steps)
