"""Hugging Face's diffusers: pipelines of DDPM's kind, in and out. Nothing here imports that package."""

from nelbo.interop.diffusers.export import to_diffusers
from nelbo.interop.diffusers.model import from_diffusers

__all__ = ["from_diffusers", "to_diffusers"]
