"""Training losses: one per file."""

from nelbo.diffusion.losses.base import Loss, LossTerms, NoisyBatch, WeightedMSE
from nelbo.diffusion.losses.hybrid import Hybrid
from nelbo.diffusion.losses.min_snr import MinSNR
from nelbo.diffusion.losses.p2 import P2
from nelbo.diffusion.losses.simple import Simple
from nelbo.diffusion.losses.vlb import VLB

__all__ = [
    "P2",
    "VLB",
    "Hybrid",
    "Loss",
    "LossTerms",
    "MinSNR",
    "NoisyBatch",
    "Simple",
    "WeightedMSE",
]
