"""Self-attention over the pixels of a feature map."""

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.layers import group_norm, zeroed


class SelfAttention(nn.Module):
    """Residual multi-head self-attention of all pixels with all pixels.

    Ho et al. 2020 (DDPM), appendix B; heads as in Nichol & Dhariwal 2021 (Improved DDPM). The rows of
    ``qkv`` are laid out [head][q, k, v][channel], as in the released weights.

    Args:
        channels: Number of channels C.
        num_heads: Number of heads; must divide ``channels``.

    Raises:
        ValueError: ``num_heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, num_heads: int = 1):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide the {channels} channels of a block")
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        qkv = self.qkv(self.norm(x)).flatten(2)  # (B, 3C, H*W)
        qkv = qkv.unflatten(1, (self.num_heads, 3, -1)).transpose(-1, -2)
        query, key, value = qkv.unbind(2)  # (B, heads, H*W, C / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(-1, -2).reshape(x.shape))
