"""P2 weighting: perception prioritized (Choi et al. 2022, equation 8)."""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import WeightedMSE


class P2(WeightedMSE):
    """Weight 1 / (k + SNR)^gamma on the eps error.

    Args:
        k: keeps the weight of noisy levels finite.
        gamma: exponent; larger values reduce the weight of clean levels more, 0 is L_simple.

    Raises:
        ValueError: when ``k`` is not positive or ``gamma`` is negative.
    """

    def __init__(self, k: float = 1.0, gamma: float = 1.0) -> None:
        if k <= 0.0 or gamma < 0.0:
            raise ValueError(f"loss=p2 needs k > 0 and gamma >= 0, not k={k}, gamma={gamma}")
        self.k = k
        self.gamma = gamma

    def weight(self, level: NoiseLevel) -> Tensor:
        """1 / (k + SNR)^gamma, (B,)."""
        return (self.k + level.snr).pow(-self.gamma)
