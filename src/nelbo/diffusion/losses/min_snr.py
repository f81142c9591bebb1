"""Min-SNR-gamma weighting (Hang et al. 2023, section 3.4)."""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import WeightedMSE


class MinSNR(WeightedMSE):
    """Weight min(SNR, gamma) / SNR on the eps error, min(SNR, gamma) on the x_0 error.

    Args:
        gamma: the SNR above which the weight on the x_0 error is constant.

    Raises:
        ValueError: when ``gamma`` is not positive.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0.0:
            raise ValueError(f"loss.gamma={gamma} must be positive")
        self.gamma = gamma

    def weight(self, level: NoiseLevel) -> Tensor:
        """min(1, gamma / SNR), (B,)."""
        return (self.gamma / level.snr).clamp(max=1.0)
