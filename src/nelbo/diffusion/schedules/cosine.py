"""Improved DDPM's cosine schedule (Nichol & Dhariwal 2021, equation 17).

    alpha_bar(u) = f(u) / f(0),   f(u) = cos^2((u + s) / (1 + s) * pi/2),   s = 0.008

The curve ends at alpha_bar(1) = 0. The paper therefore clips beta at 0.999, which changes the last level:
alpha_bar is at least 0.001 of its value one step earlier.
"""

import math

import torch
from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule


class CosineSchedule(NoiseSchedule):
    """alpha_bar follows a squared cosine.

    Args:
        num_steps: T; None for continuous time, where no beta is clipped.
        offset: s, which prevents too small first betas.
        max_beta: upper limit of beta.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: when ``offset`` is negative or ``max_beta`` is not inside (0, 1).
    """

    def __init__(
        self,
        num_steps: int | None = 1000,
        offset: float = 0.008,
        max_beta: float = 0.999,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        if offset < 0.0:
            raise ValueError(f"schedule.offset={offset} must not be negative")
        if not 0.0 < max_beta < 1.0:
            raise ValueError(f"schedule.max_beta={max_beta} must be inside (0, 1)")
        self.offset = offset
        self.max_beta = max_beta
        super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1], same shape as ``u``."""
        if self.num_steps is None:  # no step, no beta to clip
            log_alpha_bar = self._log_alpha_bar(u)
            return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
        one_step_earlier = (u - 1.0 / self.num_steps).clamp(min=0.0)
        clipped = self._log_alpha_bar(one_step_earlier) + math.log1p(-self.max_beta)
        log_alpha_bar = torch.maximum(self._log_alpha_bar(u), clipped)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def _log_alpha_bar(self, u: Tensor) -> Tensor:
        # cos(a) / cos(b) = 1 - (cos(b) - cos(a)) / cos(b), and cos(b) - cos(a) is a product of sines:
        # no cancellation as u goes to 0
        a, b = self._angle(u), self._angle(torch.zeros_like(u))
        drop = 2.0 * torch.sin(0.5 * (a + b)) * torch.sin(0.5 * (a - b)) / torch.cos(b)
        return 2.0 * torch.log1p(-drop.clamp(max=1.0))  # at u = 1 rounding may exceed 1

    def _angle(self, u: Tensor) -> Tensor:
        return (u + self.offset) / (1.0 + self.offset) * (math.pi / 2)
