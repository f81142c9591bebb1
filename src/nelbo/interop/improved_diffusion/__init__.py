"""OpenAI's improved-diffusion (Nichol & Dhariwal 2021) and guided-diffusion (Dhariwal & Nichol 2021)."""

from nelbo.interop.improved_diffusion.flags import Flags, GuidedFlags
from nelbo.interop.improved_diffusion.model import (
    DiffusionModel,
    from_guided_diffusion,
    from_improved_diffusion,
)
from nelbo.interop.improved_diffusion.names import unet_state_dict

__all__ = [
    "DiffusionModel",
    "Flags",
    "GuidedFlags",
    "from_guided_diffusion",
    "from_improved_diffusion",
    "unet_state_dict",
]
