"""Training losses: one per file."""

from nelbo.diffusion.losses.base import LogSNRDensityMSE, Loss, LossTerms, NoisyBatch, WeightedMSE
from nelbo.diffusion.losses.edm import EDMLoss
from nelbo.diffusion.losses.flow import FlowLoss
from nelbo.diffusion.losses.hybrid import Hybrid
from nelbo.diffusion.losses.min_snr import MinSNR
from nelbo.diffusion.losses.p2 import P2
from nelbo.diffusion.losses.simple import Simple
from nelbo.diffusion.losses.uncertainty import Uncertainty
from nelbo.diffusion.losses.vlb import VLB

__all__ = [
    "P2",
    "VLB",
    "EDMLoss",
    "FlowLoss",
    "Hybrid",
    "LogSNRDensityMSE",
    "Loss",
    "LossTerms",
    "MinSNR",
    "NoisyBatch",
    "Simple",
    "Uncertainty",
    "WeightedMSE",
]
