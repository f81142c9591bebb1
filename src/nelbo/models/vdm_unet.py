"""The network of Variational Diffusion Models."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.blocks import Block
from nelbo.models.embedding import MAX_PERIOD, ConditioningEmbedding
from nelbo.models.layers import conv, group_norm, zeroed
from nelbo.option_types import EvenInt, NonNegativeInt, PositiveInt, Probability


class VDMUNet(nn.Module):
    """Residual blocks at the full resolution, joined by skip connections; only the middle has attention.

    Kingma et al. 2021 (VDM), appendix B, and the released code. The input is concatenated with its Fourier
    features, and added to the first channels of the output: the network predicts the noise
    (``parameterization=eps``), whose estimate before training is x_t. Other parameterizations begin with this
    x_t as their output.

    The Fourier features need float32 inputs: bfloat16 rounds the phase 2 pi 2^7 x by more than a period.

    Args:
        shape: Shape of one example: (C, H, W) for images, (C, L) for series, (C, D, H, W) for volumes.
        out_channels: Channels of the output, at least C.
        num_classes: Number of classes, or None for an unconditional network.
        channels: Width of all blocks.
        depth: Number of blocks before the middle; ``depth + 1`` blocks follow it.
        fourier_exponents: n of the features sin(2 pi 2^n x) and cos(2 pi 2^n x); empty for none.
        dropout: Probability of dropout in the residual blocks.

    Raises:
        ValueError: for a ``shape`` without spatial dimensions or with more than 3.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        channels: EvenInt,
        depth: PositiveInt,
        fourier_exponents: Sequence[NonNegativeInt],
        dropout: Probability,
    ):
        super().__init__()
        if not 2 <= len(shape) <= 4:
            raise ValueError(
                "model=vdm_* needs series (C, L), images (C, H, W) or volumes (C, D, H, W); the data has "
                f"shape {tuple(shape)}: use model=mlp"
            )
        dims = len(shape) - 1
        self.fourier_exponents = tuple(fourier_exponents)
        self.embedding = ConditioningEmbedding(channels, 4 * channels, num_classes)
        half = channels // 2
        # the last frequency is 1 / MAX_PERIOD
        self.embedding.max_period = MAX_PERIOD ** (half / max(half - 1, 1))
        self.stem = conv(dims, shape[0] * (1 + 2 * len(self.fourier_exponents)), channels, 3)
        block = partial(
            Block, embedding_width=4 * channels, dropout=dropout, use_scale_shift_norm=False, dims=dims
        )
        self.down = nn.ModuleList([block(channels, channels, 0) for _ in range(depth)])
        self.middle = nn.ModuleList([block(channels, channels, heads) for heads in (1, 0)])
        self.up = nn.ModuleList([block(2 * channels, channels, 0) for _ in range(depth + 1)])
        self.out = nn.Sequential(
            group_norm(channels), nn.SiLU(), zeroed(conv(dims, channels, out_channels, 3))
        )
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = 1e-6

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map noisy examples to the output that the parameterization defines.

        Args:
            x: (B, C, ...).
            c: (B,), the noise conditioning.
            cond: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, ...), of which the first C channels include x.
        """
        embedding = self.embedding(c, cond)
        skips = [self.stem(torch.cat([x, fourier_features(x, self.fourier_exponents)], dim=1))]
        for block in self.down:
            skips.append(block(skips[-1], embedding))
        h = skips[-1]
        for block in self.middle:
            h = block(h, embedding)
        for block in self.up:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        out = self.out(h)
        return out + F.pad(x, [*[0] * (2 * (x.ndim - 2)), 0, out.shape[1] - x.shape[1]])


def fourier_features(x: Tensor, exponents: Sequence[int]) -> Tensor:
    """Sines, then cosines of 2 pi 2^n x, for the ``exponents`` n of each channel.

    Kingma et al. 2021 (VDM), appendix B.

    Args:
        x: (B, C, ...).
        exponents: (N,) values of n.

    Returns:
        (B, 2 C N, ...), in the type of ``x``.
    """
    frequencies = 2 * math.pi * 2.0 ** torch.tensor(exponents, dtype=torch.float32, device=x.device)
    phase = (x.float().unsqueeze(2) * frequencies.view(-1, *[1] * (x.ndim - 2))).flatten(1, 2)
    return torch.cat([phase.sin(), phase.cos()], dim=1).to(x.dtype)
