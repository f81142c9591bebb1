"""L_simple (DDPM, Ho et al. 2020, equation 14)."""

import torch
from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import WeightedMSE


class Simple(WeightedMSE):
    """Weight 1."""

    def weight(self, level: NoiseLevel) -> Tensor:
        """1, (B,)."""
        return torch.ones_like(level.logsnr)
