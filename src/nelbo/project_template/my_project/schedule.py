"""Cosine schedule, shifted for the image size (Hoogeboom et al. 2023, section 3.1).

Averaging neighbouring pixels keeps the signal and reduces the noise, so a larger image needs more noise to
destroy the same information:

    logsnr(u) = -2 log tan(a + u (b - a)) + 2 log(64 / size),

where a and b are such that the unshifted values at u = 0 and u = 1 are 15 and -15.
"""

import math

import torch
from nelbo.diffusion.schedules import NoiseSchedule
from torch import Tensor

CLEANEST = math.atan(math.exp(-0.5 * 15.0))
NOISIEST = math.atan(math.exp(0.5 * 15.0))


class ShiftedCosine(NoiseSchedule):
    """Cosine schedule with the reference size of 64 pixels.

    Args:
        num_steps: T; None for continuous time.
        size: height of the images, in pixels.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`; supplied by nelbo.

    Raises:
        ValueError: if ``size`` is below 1.
    """

    def __init__(
        self,
        num_steps: int | None = 1000,
        size: int = 64,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"schedule.size={size} must be at least 1")
        self.shift = 2.0 * math.log(64 / size)
        super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in [0, 1]."""
        return -2.0 * torch.log(torch.tan(CLEANEST + u * (NOISIEST - CLEANEST))) + self.shift
