"""Noise schedules: one curve per file."""

from nelbo.diffusion.schedules.base import NoiseSchedule, half_bin_logsnr
from nelbo.diffusion.schedules.cosine import CosineSchedule
from nelbo.diffusion.schedules.linear import LinearSchedule
from nelbo.diffusion.schedules.linear_logsnr import LinearLogSNRSchedule
from nelbo.diffusion.schedules.sigmoid import SigmoidSchedule

__all__ = [
    "CosineSchedule",
    "LinearLogSNRSchedule",
    "LinearSchedule",
    "NoiseSchedule",
    "SigmoidSchedule",
    "half_bin_logsnr",
]
