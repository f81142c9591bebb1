"""EDM's noise levels (Karras et al. 2022, equation 5), from sigma_min at u = 0 to sigma_max at u = 1.

    sigma(u) = (sigma_min^(1/rho) + u (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,   logsnr = -2 log sigma

Here sigma is noise / signal of the variance-preserving process, which EDM's variance-exploding one is scaled
by 1 / sqrt(1 + sigma^2). In continuous time, evenly spaced levels of it are EDM's sampling steps; T timesteps
are at u = i / T and begin above sigma_min.
"""

import torch
from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule


class EDMSchedule(NoiseSchedule):
    """Levels of which most are clean, for sampling in few steps.

    Args:
        num_steps: T; None for continuous time.
        sigma_min: noise / signal at u = 0.
        sigma_max: noise / signal at u = 1.
        rho: 1 is linear in sigma; a larger one has more clean levels.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: unless ``0 < sigma_min < sigma_max`` and ``rho > 0``.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        if not (0.0 < sigma_min < sigma_max and rho > 0.0):
            raise ValueError(
                f"schedule=edm needs 0 < sigma_min < sigma_max and rho > 0, not {sigma_min=}, {sigma_max=}, "
                f"{rho=}"
            )
        self.clean = sigma_min ** (1.0 / rho)
        self.noisy = sigma_max ** (1.0 / rho)
        self.rho = rho
        super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in [0, 1], same shape as ``u``."""
        return -2.0 * self.rho * torch.log(self.clean + u * (self.noisy - self.clean))
