"""A codec whose code length is the variational bound: bits-back coding along the reverse chain."""

from nelbo.evaluation.codec.chain_codec import ChainCodec, Coded, check_bin_width

__all__ = ["ChainCodec", "Coded", "check_bin_width"]
