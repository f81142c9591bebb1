"""Checkpoint formats: one kind of file, or folder, per module."""

from nelbo.interop.formats.base import CheckpointFormat, Weights
from nelbo.interop.formats.diffusers import DiffusersFormat
from nelbo.interop.formats.guided_diffusion import GuidedDiffusionFormat
from nelbo.interop.formats.improved_diffusion import ImprovedDiffusionFormat
from nelbo.interop.formats.nelbo import NelboFormat

__all__ = [
    "CheckpointFormat",
    "DiffusersFormat",
    "GuidedDiffusionFormat",
    "ImprovedDiffusionFormat",
    "NelboFormat",
    "Weights",
]
