"""Parts of the U-Net: residual block, resampling, and the levels made of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.attention import SelfAttention
from nelbo.models.layers import Conv, Dropout, conv, group_norm, zeroed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection, conditioned on the embedding between them.

    Ho et al. 2020 (DDPM), appendix B: the embedding is added before the second norm. With
    ``use_scale_shift_norm`` it scales and shifts after the norm: Nichol & Dhariwal 2021 (Improved DDPM),
    appendix A. Prefer this for narrow networks: a norm over single channels (32 channels or fewer) removes an
    added embedding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_width: Features of the conditioning embedding.
        dropout: Probability of dropout before the last convolution.
        use_scale_shift_norm: Scale and shift instead of adding.
        resample: 0.5 halves the feature map (average pooling), 2 doubles it (nearest neighbour), before the
            first convolution and on the skip connection (Dhariwal & Nichol 2021); 1 keeps it.
        dims: Number of spatial dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        dropout: float,
        use_scale_shift_norm: bool,
        resample: float = 1,
        dims: int = 2,
    ):
        super().__init__()
        self.dims = dims
        self.use_scale_shift_norm = use_scale_shift_norm
        self.resample = resample
        self.norm1 = group_norm(in_channels)
        self.conv1 = conv(dims, in_channels, out_channels, 3)
        self.embedding = nn.Linear(embedding_width, out_channels * (1 + use_scale_shift_norm))
        self.norm2 = group_norm(out_channels)
        self.dropout = Dropout(dropout)
        self.conv2 = zeroed(conv(dims, out_channels, out_channels, 3))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else conv(dims, in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, ...), (B, embedding_width) to (B, out_channels, ...), resampled."""
        h = F.silu(self.norm1(x))
        if self.resample == 0.5:
            pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[self.dims - 1]
            h, x = pool(h, 2), pool(x, 2)
        elif self.resample == 2:
            h, x = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (h, x))
        h = self.conv1(h)
        condition = self.embedding(embedding)[(..., *[None] * self.dims)]
        if self.use_scale_shift_norm:
            scale, shift = condition.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + condition)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class Block(nn.Module):
    """A residual block, followed by self-attention if ``num_heads`` is not 0."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int,
        *,
        embedding_width: int,
        dropout: float,
        use_scale_shift_norm: bool,
        dims: int,
    ):
        super().__init__()
        self.residual = ResidualBlock(
            in_channels, out_channels, embedding_width, dropout, use_scale_shift_norm, dims=dims
        )
        self.attention = SelfAttention(out_channels, num_heads, dims) if num_heads else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, ...) and (B, embedding_width) to (B, out_channels, ...)."""
        return self.attention(self.residual(x, embedding))


class DownLevel(nn.Module):
    """The blocks at one resolution of the encoder, then the downsampling, if any.

    The downsampling is a residual block, or a convolution of stride 2.
    """

    def __init__(self, blocks: Sequence[Block], downsample: Conv | ResidualBlock | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Every intermediate feature map (B, C, ...), for the skip connections; the last is the output."""
        maps = []
        for block in self.blocks:
            x = block(x, embedding)
            maps.append(x)
        if self.downsample is not None:
            is_block = isinstance(self.downsample, ResidualBlock)
            maps.append(self.downsample(x, embedding) if is_block else self.downsample(x))
        return maps


class UpLevel(nn.Module):
    """The blocks at one resolution of the decoder, then the upsampling, if any.

    The upsampling is a residual block, or a convolution after doubling by nearest neighbours.
    """

    def __init__(self, blocks: Sequence[Block], upsample: Conv | ResidualBlock | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample = upsample

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Map (B, C, ...) to (B, C', ...); every block pops the last feature map of ``skips``."""
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        if self.upsample is None:
            return x
        if isinstance(self.upsample, ResidualBlock):
            return self.upsample(x, embedding)
        return self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
