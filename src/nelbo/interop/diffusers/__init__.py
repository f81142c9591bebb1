"""Import and export of DDPM pipelines of Hugging Face's diffusers, without that package."""

from nelbo.interop.diffusers.export import to_diffusers
from nelbo.interop.diffusers.model import from_diffusers

__all__ = ["from_diffusers", "to_diffusers"]
