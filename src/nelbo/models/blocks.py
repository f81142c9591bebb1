"""Parts of the U-Net: residual block, resampling, and the levels made of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.attention import SelfAttention
from nelbo.models.layers import group_norm, zeroed


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
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        dropout: float,
        use_scale_shift_norm: bool,
        resample: float = 1,
    ):
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.resample = resample
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_width, out_channels * (1 + use_scale_shift_norm))
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, H, W), (B, embedding_width) to (B, out_channels, r H, r W), r = resample."""
        h = F.silu(self.norm1(x))
        if self.resample == 0.5:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == 2:
            h, x = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (h, x))
        h = self.conv1(h)
        condition = self.embedding(embedding)[:, :, None, None]
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
    ):
        super().__init__()
        self.residual = ResidualBlock(
            in_channels, out_channels, embedding_width, dropout, use_scale_shift_norm
        )
        self.attention = SelfAttention(out_channels, num_heads) if num_heads else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) and (B, embedding_width) to (B, out_channels, H, W)."""
        return self.attention(self.residual(x, embedding))


class Downsample(nn.Conv2d):
    """Halve the feature map by a strided 3x3 convolution: (B, C, H, W) to (B, C, H/2, W/2)."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Double the feature map, nearest neighbour then a 3x3 convolution: (B, C, H, W) to (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))


class DownLevel(nn.Module):
    """The blocks at one resolution of the encoder, then the downsampling, if any."""

    def __init__(self, blocks: Sequence[Block], downsample: Downsample | ResidualBlock | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Every intermediate feature map (B, C, H, W), for the skip connections; the last is the output."""
        maps = []
        for block in self.blocks:
            x = block(x, embedding)
            maps.append(x)
        if self.downsample is not None:
            maps.append(_resampled(self.downsample, x, embedding))
        return maps


class UpLevel(nn.Module):
    """The blocks at one resolution of the decoder, then the upsampling, if any."""

    def __init__(self, blocks: Sequence[Block], upsample: Upsample | ResidualBlock | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample = upsample

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Map (B, C, H, W) to (B, C', r H, r W); every block pops the last feature map of ``skips``."""
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return x if self.upsample is None else _resampled(self.upsample, x, embedding)


def _resampled(module: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    return module(x, embedding) if isinstance(module, ResidualBlock) else module(x)
