"""The schedule that is linear in logsnr (VDM, Kingma et al. 2021, section 6.1 and appendix).

VDM learns the two ends, starting from about 13.3 and -5, which are the published ends here. The line extends
beyond them.
"""

from torch import Tensor

from nelbo.diffusion.schedules.base import NoiseSchedule

PUBLISHED_MAX = 13.3
PUBLISHED_MIN = -5.0


class LinearLogSNRSchedule(NoiseSchedule):
    """logsnr falls linearly with t.

    Args:
        num_steps: T; None for continuous time.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.
    """

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1], same shape as ``u``."""
        return PUBLISHED_MAX + u * (PUBLISHED_MIN - PUBLISHED_MAX)

    def position(self, logsnr: float) -> float:
        """The u at which the line has this logsnr; outside (0, 1] beyond the published ends."""
        return (logsnr - PUBLISHED_MAX) / (PUBLISHED_MIN - PUBLISHED_MAX)
