"""The U-Net of DDPM and Improved DDPM."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor, nn

from nelbo.models.blocks import Block, DownLevel, ResidualBlock, UpLevel
from nelbo.models.embedding import ConditioningEmbedding
from nelbo.models.layers import conv, group_norm, zeroed
from nelbo.option_types import EvenInt, PositiveInt, Probability


class UNet(nn.Module):
    """Encoder and decoder of residual blocks and self-attention, joined by skip connections.

    Ho et al. 2020 (DDPM), appendix B; ``num_heads`` and ``use_scale_shift_norm`` from Nichol & Dhariwal
    2021 (Improved DDPM); ``num_head_channels`` and ``resblock_updown`` from Dhariwal & Nichol 2021
    (guided-diffusion). The released weights of all three can be loaded, see ``nelbo.interop``.

    Args:
        shape: Shape of one example: (C, H, W) for images, (C, L) for series, (C, D, H, W) for volumes.
        out_channels: Channels of the output.
        num_classes: Number of classes, or None for an unconditional network.
        channels: Width at the full resolution.
        channel_mult: Width of every level, as a multiple of ``channels``; each level after the first
            halves the feature map.
        num_res_blocks: Blocks per level of the encoder; the decoder has one more.
        attention_resolutions: Shortest sides of the feature maps with attention, for example 16 for 16x16
            maps; None for those of the second level. The middle always has attention.
        num_heads: Heads of every attention.
        dropout: Probability of dropout in the residual blocks.
        use_scale_shift_norm: Scale and shift the features by the embedding instead of adding it.
        num_head_channels: Channels of every head, in place of ``num_heads``; None for ``num_heads``.
        resblock_updown: Halve and double the feature maps in residual blocks instead of convolutions.
        embedding_channels: Sinusoidal features of the noise embedding; None for ``channels``.

    Raises:
        ValueError: for a ``shape`` without spatial dimensions or with more than 3, that is not divisible for
            all levels or has no feature map of ``attention_resolutions``; for ``num_heads`` or
            ``num_head_channels`` that does not divide the channels.
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
        attention_resolutions: Sequence[PositiveInt] | None,
        num_heads: PositiveInt,
        dropout: Probability,
        use_scale_shift_norm: bool,
        num_head_channels: PositiveInt | None = None,
        resblock_updown: bool = False,
        embedding_channels: EvenInt | None = None,
    ):
        super().__init__()
        dims = len(shape) - 1
        sides = _feature_map_sides(shape, channel_mult)
        attended = _attended_levels(sides, attention_resolutions)
        widths = [round(channels * multiple) for multiple in channel_mult]
        heads_of = partial(_heads, num_heads=num_heads, num_head_channels=num_head_channels)
        heads = [heads_of(width) if level in attended else 0 for level, width in enumerate(widths)]
        levels = range(len(widths))
        embedding_channels = channels if embedding_channels is None else embedding_channels
        options = {
            "embedding_width": 4 * embedding_channels,
            "dropout": dropout,
            "use_scale_shift_norm": use_scale_shift_norm,
            "dims": dims,
        }
        block = partial(Block, **options)

        self.embedding = ConditioningEmbedding(embedding_channels, 4 * embedding_channels, num_classes)
        self.stem = conv(dims, shape[0], channels, 3)

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
                    else conv(dims, width, width, 3, stride=2)
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
                    ResidualBlock(width, width, **options, resample=2)
                    if resblock_updown
                    else conv(dims, width, width, 3)
                )
            self.up.append(UpLevel(blocks, upsample))

        self.out = nn.Sequential(group_norm(width), nn.SiLU(), zeroed(conv(dims, width, out_channels, 3)))

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map noisy examples to the output that the parameterization defines.

        Args:
            x: (B, *shape).
            c: (B,), the noise conditioning.
            cond: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, *shape[1:]).
        """
        embedding = self.embedding(c, cond)
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


def _feature_map_sides(shape: tuple[int, ...], channel_mult: Sequence[float]) -> list[int]:
    """Return the shortest side of every level's feature maps; check that the data fits."""
    if not 2 <= len(shape) <= 4:
        raise ValueError(
            "model=unet_* needs series (C, L), images (C, H, W) or volumes (C, D, H, W); the data has shape "
            f"{tuple(shape)}: use model=mlp"
        )
    halvings = len(channel_mult) - 1
    factor = 2**halvings
    if any(size % factor for size in shape[1:]):
        smaller = "x".join(str(max(factor, size // factor * factor)) for size in shape[1:])
        larger = "x".join(str(-(-size // factor) * factor) for size in shape[1:])
        fitting = " or ".join(dict.fromkeys((smaller, larger)))
        raise ValueError(
            f"data of {'x'.join(map(str, shape[1:]))} cannot be halved {halvings} times, as the "
            f"{len(channel_mult)} levels of model.channel_mult={list(channel_mult)} ask: use multiples of "
            f"{factor} ({fitting}), fewer levels or model=mlp"
        )
    return [min(shape[1:]) >> level for level in range(len(channel_mult))]


def _attended_levels(sides: Sequence[int], attention_resolutions: Sequence[int] | None) -> list[int]:
    """Return the levels with attention; check that the feature maps have the given sides."""
    if attention_resolutions is None:
        return [1]
    if attention_resolutions and not set(attention_resolutions) & set(sides):
        raise ValueError(
            f"model.attention_resolutions={list(attention_resolutions)} of this network matches none of "
            f"its feature maps, whose sides are {list(sides)}: add model.attention_resolutions=null, the "
            "second level, or a list of some of them"
        )
    return [level for level, side in enumerate(sides) if side in attention_resolutions]
