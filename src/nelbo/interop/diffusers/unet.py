"""Our U-Net with the options of ``UNet2DModel`` of diffusers.

The code of DDPM, and with it google/ddpm-cifar10-32, differs from that of Improved DDPM in three of them,
which do not change the shapes of the weights: the epsilon of the norms, the padding before downsampling, and
the spacing of the frequencies of the time embedding.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.attention import SelfAttention
from nelbo.models.blocks import DownLevel
from nelbo.models.embedding import MAX_PERIOD
from nelbo.models.unet import UNet


class UnsupportedError(ValueError):
    """A configuration that our U-Net does not support."""


class DiffusersUNet(nn.Module):
    """A ``UNet2DModel`` of diffusers.

    Its weights have the prefix ``unet.``, so that they cannot be loaded into our U-Net without these options,
    or vice versa.

    Args:
        shape: see :class:`~nelbo.models.unet.UNet`.
        out_channels: of the output.
        num_classes: of a class-conditional network; None for an unconditional one.
        channels: width at the full resolution.
        channel_mult: width of every level.
        num_res_blocks: blocks per level of the encoder.
        attention_levels: levels with attention; 0 is the full resolution.
        dropout: in the residual blocks.
        use_scale_shift_norm: scale and shift the features by the embedding instead of adding it.
        attention_head_dim: channels of every head; None for one head.
        norm_num_groups: of every norm.
        norm_eps: of every norm.
        downsample_padding: 1 pads all sides before downsampling; 0 pads only right and bottom.
        freq_shift: the exponents of the frequencies are divided by half the width less this number.

    Raises:
        UnsupportedError: if the heads or the groups do not divide the channels.
        ValueError: as ``UNet``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[int],
        dropout: float,
        use_scale_shift_norm: bool,
        attention_head_dim: int | None,
        norm_num_groups: int,
        norm_eps: float,
        downsample_padding: int,
        freq_shift: int,
    ) -> None:
        super().__init__()
        self.unet = UNet(
            shape,
            out_channels,
            num_classes,
            channels=channels,
            channel_mult=channel_mult,
            num_res_blocks=num_res_blocks,
            attention_resolutions=[min(shape[1:]) >> level for level in attention_levels],
            num_heads=1,
            dropout=dropout,
            use_scale_shift_norm=use_scale_shift_norm,
        )
        self.downsample_padding = downsample_padding
        self.freq_shift = freq_shift
        half = channels // 2
        self.unet.embedding.max_period = MAX_PERIOD ** (half / (half - freq_shift))
        for module in self.unet.modules():
            if isinstance(module, nn.GroupNorm):
                _check_divides("norm_num_groups", norm_num_groups, module.num_channels)
                module.num_groups, module.eps = norm_num_groups, norm_eps
            elif isinstance(module, SelfAttention) and attention_head_dim is not None:
                width = module.out.out_channels
                _check_divides("attention_head_dim", attention_head_dim, width)
                module.num_heads = width // attention_head_dim
            elif (
                downsample_padding == 0
                and isinstance(module, DownLevel)
                and isinstance(module.downsample, nn.Conv2d)
            ):
                module.downsample = RightDownsample(module.downsample.out_channels)

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B,) and (B,) int64 to (B, out_channels, H, W)."""
        return self.unet(x, c, cond)


class RightDownsample(nn.Conv2d):
    """Halve the feature map, padded on the right and at the bottom (``SAME`` of TensorFlow)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return super().forward(F.pad(input, (0, 1, 0, 1)))


def _check_divides(name: str, number: int, channels: int) -> None:
    if channels % number:
        raise UnsupportedError(f"{name}={number} does not divide the {channels} channels of a block")
