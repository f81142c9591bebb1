"""A codec whose code length is the variational bound: bits-back coding along the reverse chain."""

from nelbo.evaluation.codec.chain_codec import ChainCodec, Coded

__all__ = ["ChainCodec", "Coded"]
