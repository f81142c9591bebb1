"""OpenAI's improved-diffusion, the code of Nichol & Dhariwal 2021: its weights, its flags, its models."""

from nelbo.interop.improved_diffusion.flags import Flags
from nelbo.interop.improved_diffusion.model import DiffusionModel, from_improved_diffusion
from nelbo.interop.improved_diffusion.names import unet_state_dict

__all__ = ["DiffusionModel", "Flags", "from_improved_diffusion", "unet_state_dict"]
