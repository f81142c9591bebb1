"""DDPM's linear schedule (Ho et al. 2020, section 4): betas evenly spaced from 1e-4 to 0.02 at T = 1000.

For another T the betas are multiplied by 1000 / T, as in Improved DDPM, which keeps the curve over t/T.
Between timesteps log(alpha_bar) is interpolated linearly. In continuous time it is the limit T -> infinity,
log(alpha_bar) = -1000 int_0^u beta (the VP SDE of Song et al. 2021, equation 32).
"""

import torch
from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule, check_num_steps


class LinearSchedule(NoiseSchedule):
    """beta_t = (1000 / T) * (beta_first ... beta_last), linear in t.

    Args:
        num_steps: T; None for continuous time.
        beta_first: beta_1 at T = 1000.
        beta_last: beta_T at T = 1000.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: for a beta outside (0, 1); with the published ends, for T up to 20.
    """

    def __init__(
        self,
        num_steps: int | None = 1000,
        beta_first: float = 1e-4,
        beta_last: float = 0.02,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        check_num_steps(num_steps)
        if not 0.0 < beta_first <= beta_last:
            raise ValueError(
                f"schedule: beta_first={beta_first} and beta_last={beta_last} must be positive and in order"
            )
        self.beta_first, self.beta_last = beta_first, beta_last
        if num_steps is None:
            super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)
            return
        rescale = 1000.0 / num_steps
        if beta_last * rescale >= 1.0:
            raise ValueError(
                f"schedule=linear with num_steps={num_steps} has a last beta of {beta_last * rescale:g}, "
                f"but a beta must be below 1: use more than {1000.0 * beta_last:g} steps, or schedule=cosine"
            )
        betas = torch.linspace(rescale * beta_first, rescale * beta_last, num_steps, dtype=torch.float64)
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        self._log_alpha_bar = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])  # t = 0..T
        super().__init__(num_steps, logsnr_max, logsnr_min, half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1], by linear interpolation of log(alpha_bar) between timesteps."""
        if self.num_steps is None:
            mean_beta = self.beta_first + 0.5 * u * (self.beta_last - self.beta_first)  # over 0..u
            log_alpha_bar = -1000.0 * u * mean_beta
            return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
        position = u * self.num_steps
        before = position.floor().clamp(max=self.num_steps - 1).long()
        table = self._log_alpha_bar
        log_alpha_bar = torch.lerp(table[before], table[before + 1], position - before)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
