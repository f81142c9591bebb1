"""Samplers: one per file."""

from nelbo.diffusion.samplers.ancestral import Ancestral
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.ddim import DDIM

__all__ = ["DDIM", "Ancestral", "Sampler"]
