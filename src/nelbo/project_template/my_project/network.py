"""A small diffusion transformer (Peebles & Xie 2023, "Scalable diffusion models with transformers")."""

import torch
import torch.nn.functional as F
from nelbo.models.embedding import ConditioningEmbedding
from nelbo.models.layers import zeroed
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and an MLP; scale, shift and gate of both come from the conditioning (adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, patches, width) and (B, width) to (B, patches, width)."""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        x = self.norm1(h) * (1 + scale1) + shift1
        h = h + gate1 * self.attention(x, x, x, need_weights=False)[0]
        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)


class SmallDiT(nn.Module):
    """Transformer over square patches of an image.

    Args:
        shape: (C, H, W) of one example; supplied by nelbo.
        out_channels: number of output channels; supplied by nelbo.
        num_classes: number of classes, or None for an unconditional network; supplied by nelbo.
        patch: height and width of a patch, in pixels.
        width: features of a patch.
        depth: number of blocks.
        heads: attention heads.

    Raises:
        ValueError: if ``patch`` does not divide the image, or ``heads`` the width.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        channels, *size = shape
        if any(pixels % patch for pixels in size):
            raise ValueError(f"model.patch={patch} does not divide images of {shape}")
        if width % heads:
            raise ValueError(f"model.heads={heads} does not divide model.width={width}")
        self.patch = patch
        self.embedding = ConditioningEmbedding(width, width, num_classes)
        self.stem = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(width, *(pixels // patch for pixels in size)))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Conv2d(width, out_channels * patch**2, 1))

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), the noise conditioning (B,) and a class (B,) to (B, out_channels, H, W)."""
        embedding = self.embedding(c, cond)
        h = self.stem(x) + self.position
        rows = h.shape[-2]
        h = h.flatten(2).transpose(1, 2)
        for block in self.blocks:
            h = block(h, embedding)
        h = self.norm(h).transpose(1, 2).unflatten(2, (rows, -1))
        return F.pixel_shuffle(self.out(h), self.patch)
