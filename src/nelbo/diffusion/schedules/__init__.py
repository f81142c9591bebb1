"""Noise schedules: one curve per file."""

from nelbo.diffusion.schedules.adaptive import AdaptiveSchedule
from nelbo.diffusion.schedules.base import CurvePoint, NoiseSchedule, half_bin_logsnr
from nelbo.diffusion.schedules.cosine import CosineSchedule
from nelbo.diffusion.schedules.edm import EDMSchedule
from nelbo.diffusion.schedules.learned_ends import LearnedEnds, LearnedSchedule
from nelbo.diffusion.schedules.learned_net import LearnedNet
from nelbo.diffusion.schedules.linear import LinearSchedule
from nelbo.diffusion.schedules.linear_logsnr import LinearLogSNRSchedule
from nelbo.diffusion.schedules.rectified_flow import RectifiedFlowSchedule
from nelbo.diffusion.schedules.sigmoid import SigmoidSchedule

__all__ = [
    "AdaptiveSchedule",
    "CosineSchedule",
    "CurvePoint",
    "EDMSchedule",
    "LearnedEnds",
    "LearnedNet",
    "LearnedSchedule",
    "LinearLogSNRSchedule",
    "LinearSchedule",
    "NoiseSchedule",
    "RectifiedFlowSchedule",
    "SigmoidSchedule",
    "half_bin_logsnr",
]
