"""The loss of rectified flow (Liu et al. 2023, equation 1), |v - v_hat|^2 with v = eps - x_0, over flow time.

Flow time w = noise / (signal + noise) is uniform, or logit-normal (Esser et al. 2024, equation 19), for which
ln(w / (1 - w)) = ln sigma is normal. The error of v is that of eps times (1 + sigma)^2.
"""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import LogSNRDensityMSE, log_normal_density


class FlowLoss(LogSNRDensityMSE):
    """The squared error of the velocity.

    Args:
        mean: of ln sigma under a logit-normal density of flow time.
        std: of ln sigma; None for a uniform density of flow time.

    Raises:
        ValueError: when ``std`` is not above 0.
    """

    def __init__(self, mean: float = 0.0, std: float | None = None) -> None:
        if std is not None and not std > 0.0:
            raise ValueError(f"loss.std={std} must be above 0, or null")
        self.mean = mean
        self.std = std

    def density_weight(self, level: NoiseLevel) -> Tensor:
        """p(logsnr) (1 + sigma)^2, (B,) float64; sigma / 2 for uniform flow time."""
        sigma = (-0.5 * level.logsnr).exp()
        if self.std is None:
            return 0.5 * sigma  # dw/dlogsnr = sigma / (2 (1 + sigma)^2)
        return log_normal_density(level, self.mean, self.std) * (1.0 + sigma).square()
