"""Self-attention over the positions of a feature map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.layers import Conv, conv, group_norm, zeroed


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1) of (B, heads, positions, features).

    In bfloat16 on CPUs torch's fused operation is slower than :func:`explicit_attention`, most of all for few
    positions (docs/performance.md).
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return explicit_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def explicit_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """:func:`attention` by two products and a softmax, which store the (positions, positions) weights."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.softmax(-1).to(value.dtype) @ value


class SelfAttention(nn.Module):
    """Residual multi-head self-attention of all positions (pixels of an image) with all positions.

    Ho et al. 2020 (DDPM), appendix B; heads as in Nichol & Dhariwal 2021 (Improved DDPM). The rows of
    ``qkv`` are ordered [head][q, k, v][channel], as in the released weights.

    Args:
        channels: Number of channels C.
        num_heads: Number of heads; must divide ``channels``.
        dims: Number of spatial dimensions.

    Raises:
        ValueError: ``num_heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, num_heads: int = 1, dims: int = 2):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide the {channels} channels of a block")
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.qkv = conv(dims, channels, 3 * channels, 1)
        self.out = zeroed(conv(dims, channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to the same shape."""
        # attention is fastest with the channels of a pixel contiguous, especially with several heads
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C) for images
        qkv = _per_pixel(self.qkv, pixels).unflatten(2, (self.num_heads, 3, -1)).transpose(1, 2)
        query, key, value = qkv.unbind(3)  # (B, heads, H*W, C / heads)
        mixed = attention(query, key, value)
        out = _per_pixel(self.out, mixed.transpose(1, 2).flatten(2))
        return x + out.transpose(1, 2).reshape(x.shape)


def _per_pixel(conv: Conv, pixels: Tensor) -> Tensor:
    """A 1x1 convolution of (B, H*W, C), computed as a matrix product."""
    return F.linear(pixels, conv.weight.flatten(1), conv.bias)
