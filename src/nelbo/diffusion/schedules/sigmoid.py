"""The sigmoid schedule of Jabri, Fleet & Chen 2022 (RIN, section 4; Chen 2023, algorithm 1).

    alpha_bar(u) = (sigmoid(end / tau) - sigmoid(x / tau)) / (sigmoid(end / tau) - sigmoid(start / tau)),
    x = start + u (end - start)

clipped at 1e-9 as in the paper. The logsnr is computed without cancellation from
sigmoid(a) - sigmoid(b) = sinh((a-b)/2) / (2 cosh(a/2) cosh(b/2)).
"""

import math

import torch
from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule


class SigmoidSchedule(NoiseSchedule):
    """alpha_bar follows a sigmoid.

    Args:
        num_steps: T; None for continuous time.
        start: argument of the sigmoid at u = 0.
        end: argument of the sigmoid at u = 1.
        tau: temperature; a larger one gives a more linear curve.
        min_alpha_bar: lower limit of alpha_bar.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: when ``start < end``, ``tau > 0`` or ``0 < min_alpha_bar < 1`` does not hold.
    """

    def __init__(
        self,
        num_steps: int | None = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        min_alpha_bar: float = 1e-9,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        if not (start < end and tau > 0.0):
            raise ValueError(f"schedule=sigmoid needs start < end and tau > 0, not {start=}, {end=}, {tau=}")
        if not 0.0 < min_alpha_bar < 1.0:
            raise ValueError(f"schedule.min_alpha_bar={min_alpha_bar} must be inside (0, 1)")
        self.start = start / tau
        self.end = end / tau
        self.min_logsnr = math.log(min_alpha_bar) - math.log1p(-min_alpha_bar)
        super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1], same shape as ``u``."""
        x = self.start + u * (self.end - self.start)
        signal = torch.log(torch.sinh(0.5 * (self.end - x))) - math.log(math.cosh(0.5 * self.end))
        noise = torch.log(torch.sinh(0.5 * (x - self.start))) - math.log(math.cosh(0.5 * self.start))
        return (signal - noise).clamp(min=self.min_logsnr)
