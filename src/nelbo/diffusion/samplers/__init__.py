"""Samplers: one per file."""

from nelbo.diffusion.samplers.ancestral import Ancestral
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.ddim import DDIM
from nelbo.diffusion.samplers.dpm_solver_pp import DPMSolverPP
from nelbo.diffusion.samplers.edm import EDMSampler
from nelbo.diffusion.samplers.heun import Heun
from nelbo.diffusion.samplers.state import HistoryEntry, SamplerState

__all__ = [
    "DDIM",
    "Ancestral",
    "DPMSolverPP",
    "EDMSampler",
    "Heun",
    "HistoryEntry",
    "Sampler",
    "SamplerState",
]
