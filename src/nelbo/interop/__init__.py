"""Import and export of checkpoints of other projects."""

from nelbo.interop.diffusers import from_diffusers, to_diffusers
from nelbo.interop.improved_diffusion import DiffusionModel, from_guided_diffusion, from_improved_diffusion

__all__ = [
    "DiffusionModel",
    "from_diffusers",
    "from_guided_diffusion",
    "from_improved_diffusion",
    "to_diffusers",
]
