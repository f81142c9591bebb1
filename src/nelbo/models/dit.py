"""The diffusion transformer."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.attention import attention
from nelbo.models.embedding import ConditioningEmbedding, sinusoidal_frequencies
from nelbo.models.layers import zeroed
from nelbo.option_types import PositiveInt

TIME_FEATURES = 256
LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d)


class DiTBlock(nn.Module):
    """Self-attention and an MLP; the conditioning scales, shifts and gates both (adaLN-Zero).

    Peebles & Xie 2023, section 3.2 and figure 3.

    Args:
        width: Features of a patch.
        num_heads: Heads of the attention.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv = _xavier(nn.Linear(width, 3 * width))
        self.out = _xavier(nn.Linear(width, width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = nn.Sequential(
            _xavier(nn.Linear(width, 4 * width)),
            nn.GELU(approximate="tanh"),
            _xavier(nn.Linear(4 * width, width)),
        )
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, patches, width) and (B, width) to (B, patches, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        h = h + gate1 * self._attend(self.norm1(h) * (1 + scale1) + shift1)
        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)

    def _attend(self, h: Tensor) -> Tensor:
        qkv = self.qkv(h).unflatten(2, (3, self.num_heads, -1)).transpose(1, 3)  # (B, heads, 3, patches, -1)
        query, key, value = qkv.unbind(2)
        return self.out(attention(query, key, value).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """Transformer over the patches of an image.

    Peebles & Xie 2023, "Scalable diffusion models with transformers": fixed sine-cosine position embedding,
    adaLN-Zero blocks, 256 sinusoidal features of the noise conditioning; initialised as in the released code.

    Args:
        shape: (C, H, W) of one example.
        out_channels: Channels of the output.
        num_classes: Number of classes, or None for an unconditional network.
        patch_size: Height and width of a patch, in pixels.
        width: Features of a patch; a multiple of 4.
        depth: Number of blocks.
        num_heads: Heads of every attention.

    Raises:
        ValueError: for data that is not an image; for ``patch_size`` that does not divide the image;
            for ``width`` that is not a multiple of 4 and of ``num_heads``.
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        patch_size: PositiveInt,
        width: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"model=dit_* needs images (C, H, W); the data has shape {tuple(shape)}: use model=mlp"
            )
        channels, height, image_width = shape
        if height % patch_size or image_width % patch_size:
            divisors = [n for n in range(1, min(shape[1:]) + 1) if not (height % n or image_width % n)]
            raise ValueError(
                f"model.patch_size={patch_size} does not divide images of {height}x{image_width}: "
                f"use one of {', '.join(map(str, divisors))}"
            )
        if width % 4 or width % num_heads:
            raise ValueError(
                f"model.width={width} must be a multiple of 4 and of model.num_heads={num_heads}"
            )
        self.patch_size = patch_size
        self.embedding = ConditioningEmbedding(TIME_FEATURES, width, num_classes)
        self.stem = _xavier(nn.Conv2d(channels, width, patch_size, stride=patch_size))
        positions = position_embedding(height // patch_size, image_width // patch_size, width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList([DiTBlock(width, num_heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, out_channels * patch_size**2))
        for linear in (self.embedding.linear1, self.embedding.linear2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        if self.embedding.label is not None:
            nn.init.normal_(self.embedding.label.weight, std=0.02)

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map noisy images to the output that the parameterization defines.

        Args:
            x: (B, C, H, W).
            c: (B,), the noise conditioning.
            cond: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, H, W).
        """
        embedding = self.embedding(c, cond)
        patches = self.stem(x)
        rows = patches.shape[2]
        h = patches.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        h = self.out(self.norm(h) * (1 + scale) + shift)
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, (rows, -1)), self.patch_size)


def position_embedding(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the column, then of the row, of every patch.

    Peebles & Xie 2023, released code (from He et al. 2022, masked autoencoders).

    Args:
        rows: Patches along the height.
        columns: Patches along the width.
        width: Number of features; a multiple of 4.

    Returns:
        (rows * columns, width), float32.
    """
    frequencies = sinusoidal_frequencies(width // 2)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    phases = [position.reshape(-1, 1) * frequencies for position in (column, row)]
    return torch.cat([part for phase in phases for part in (phase.sin(), phase.cos())], dim=1)


def _xavier(layer: LayerT) -> LayerT:
    """Initialise a linear map of features or of patches as Glorot & Bengio 2010, with a bias of 0."""
    nn.init.xavier_uniform_(layer.weight.flatten(1))  # a view
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
