"""Decoders: one likelihood per file."""

from nelbo.diffusion.decoders.base import Decoder
from nelbo.diffusion.decoders.discretized_gaussian import DiscretizedGaussian
from nelbo.diffusion.decoders.gaussian import GaussianDecoder
from nelbo.diffusion.decoders.softmax import Softmax

__all__ = ["Decoder", "DiscretizedGaussian", "GaussianDecoder", "Softmax"]
