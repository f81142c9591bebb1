"""The straight line of rectified flow (Liu et al. 2023, equation 1): (1 - u) x_0 + u eps.

Divided by sqrt((1 - u)^2 + u^2) this is a variance-preserving process with sigma = u / (1 - u), so

    logsnr(u) = 2 log((1 - u) / u)
"""

import torch
from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule


class RectifiedFlowSchedule(NoiseSchedule):
    """u is the share of the noise in a straight line from data to noise.

    Args:
        num_steps: T; None for continuous time.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`. With T timesteps the published end has no signal.
        half_bin: see :class:`NoiseSchedule`.
    """

    zero_terminal_snr = True

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in [0, 1], same shape as ``u``."""
        return 2.0 * (torch.log1p(-u) - torch.log(u))
