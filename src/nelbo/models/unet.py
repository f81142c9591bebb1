"""The U-Net of DDPM and Improved DDPM."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor, nn

from nelbo.models.blocks import Block, DownLevel, Downsample, ResidualBlock, UpLevel, Upsample
from nelbo.models.embedding import ConditioningEmbedding
from nelbo.models.layers import group_norm, zeroed
from nelbo.option_types import EvenInt, PositiveInt, Probability


class UNet(nn.Module):
    """Encoder and decoder of residual blocks and self-attention, joined by skip connections.

    Ho et al. 2020 (DDPM), appendix B; ``num_heads`` and ``use_scale_shift_norm`` from Nichol & Dhariwal
    2021 (Improved DDPM); ``num_head_channels`` and ``resblock_updown`` from Dhariwal & Nichol 2021
    (guided-diffusion). The released weights of all three can be loaded, see ``nelbo.interop``.

    Args:
        shape: Shape of one example, (C, H, W).
        out_channels: Channels of the output.
        num_classes: Number of classes, or None for an unconditional network.
        channels: Width at the full resolution.
        channel_mult: Width of every level, as a multiple of ``channels``; each level after the first
            halves the feature map.
        num_res_blocks: Blocks per level of the encoder; the decoder has one more.
        attention_resolutions: Sides of the feature maps with attention, for example 16 for 16x16 maps. The
            middle always has attention.
        num_heads: Heads of every attention.
        dropout: Probability of dropout in the residual blocks.
        use_scale_shift_norm: Scale and shift the features by the embedding instead of adding it.
        num_head_channels: Channels of every head, in place of ``num_heads``; None for ``num_heads``.
        resblock_updown: Halve and double the feature maps in residual blocks instead of convolutions.
        embedding_channels: Sinusoidal features of the noise embedding; None for ``channels``.

    Raises:
        ValueError: for a ``shape`` that is not an image, is not divisible for all levels or has no feature
            map of ``attention_resolutions``; for ``num_heads`` or ``num_head_channels`` that does not divide
            the channels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        channels: EvenInt,
        channel_mult: Annotated[Sequence[PositiveInt], MinLen(1)],
        num_res_blocks: PositiveInt,
        attention_resolutions: Sequence[PositiveInt],
        num_heads: PositiveInt,
        dropout: Probability,
        use_scale_shift_norm: bool,
        num_head_channels: PositiveInt | None = None,
        resblock_updown: bool = False,
        embedding_channels: EvenInt | None = None,
    ):
        super().__init__()
        sides = _feature_map_sides(shape, channel_mult, attention_resolutions)
        widths = [round(channels * multiple) for multiple in channel_mult]
        heads_of = partial(_heads, num_heads=num_heads, num_head_channels=num_head_channels)
        heads = [
            heads_of(width) if side in attention_resolutions else 0
            for side, width in zip(sides, widths, strict=True)
        ]
        levels = range(len(widths))
        embedding_channels = channels if embedding_channels is None else embedding_channels
        options = {
            "embedding_width": 4 * embedding_channels,
            "dropout": dropout,
            "use_scale_shift_norm": use_scale_shift_norm,
        }
        block = partial(Block, **options)

        self.embedding = ConditioningEmbedding(embedding_channels, 4 * embedding_channels, num_classes)
        self.stem = nn.Conv2d(shape[0], channels, 3, padding=1)

        width = channels
        skips = [width]  # widths of the feature maps that the decoder concatenates
        self.down = nn.ModuleList()
        for level in levels:
            blocks = []
            for _ in range(num_res_blocks):
                blocks.append(block(width, widths[level], heads[level]))
                width = widths[level]
                skips.append(width)
            downsample = None
            if level < levels[-1]:
                downsample = (
                    ResidualBlock(width, width, **options, resample=0.5)
                    if resblock_updown
                    else Downsample(width)
                )
                skips.append(width)
            self.down.append(DownLevel(blocks, downsample))

        self.middle = nn.ModuleList([block(width, width, heads_of(width)), block(width, width, 0)])

        self.up = nn.ModuleList()  # coarsest first
        for level in reversed(levels):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(block(width + skips.pop(), widths[level], heads[level]))
                width = widths[level]
            upsample = None
            if level > 0:
                upsample = (
                    ResidualBlock(width, width, **options, resample=2) if resblock_updown else Upsample(width)
                )
            self.up.append(UpLevel(blocks, upsample))

        self.out = nn.Sequential(
            group_norm(width), nn.SiLU(), zeroed(nn.Conv2d(width, out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Map noisy images to the output that the parameterization defines.

        Args:
            x: (B, C, H, W).
            c: (B,), the noise conditioning on the scale 0..1000.
            label: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, H, W).
        """
        embedding = self.embedding(c, label)
        skips = [self.stem(x)]
        for level in self.down:
            skips += level(skips[-1], embedding)
        h = skips[-1]
        for block in self.middle:
            h = block(h, embedding)
        for level in self.up:
            h = level(h, embedding, skips)
        return self.out(h)


def _heads(channels: int, num_heads: int, num_head_channels: int | None) -> int:
    """Return the number of heads of an attention of ``channels``."""
    if num_head_channels is None:
        return num_heads
    if num_head_channels < 1 or channels % num_head_channels:
        raise ValueError(
            f"num_head_channels={num_head_channels} does not divide the {channels} channels of a block"
        )
    return channels // num_head_channels


def _feature_map_sides(
    shape: tuple[int, ...], channel_mult: Sequence[float], attention_resolutions: Sequence[int]
) -> list[int]:
    """Return the shorter side of every level's feature maps; check that the data fits."""
    if len(shape) != 3:
        raise ValueError(
            f"model=unet_* needs images (C, H, W); the data has shape {tuple(shape)}: use model=mlp"
        )
    _, height, width = shape
    halvings = len(channel_mult) - 1
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"images of {height}x{width} cannot be halved {halvings} times, as the "
            f"{len(channel_mult)} levels of channel_mult={list(channel_mult)} ask"
        )
    sides = [min(height, width) >> level for level in range(len(channel_mult))]
    if attention_resolutions and not set(attention_resolutions) & set(sides):
        raise ValueError(
            f"attention_resolutions={list(attention_resolutions)} matches none of the feature maps, "
            f"whose sides are {sides}"
        )
    return sides
