"""Spacings: one choice of a shorter chain's timesteps per file."""

from nelbo.diffusion.spacings.base import Spacing
from nelbo.diffusion.spacings.even import Even
from nelbo.diffusion.spacings.karras import Karras
from nelbo.diffusion.spacings.optimal import Optimal
from nelbo.diffusion.spacings.quadratic import Quadratic
from nelbo.diffusion.spacings.trailing import Trailing
from nelbo.diffusion.spacings.uniform_logsnr import UniformLogSNR

__all__ = ["Even", "Karras", "Optimal", "Quadratic", "Spacing", "Trailing", "UniformLogSNR"]
