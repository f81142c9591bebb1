"""Our U-Net with the details that diffusers' ``UNet2DModel`` leaves open.

DDPM's first code, and with it google/ddpm-cifar10-32, differs from Improved DDPM's in three of them, none of
which shows in the shapes of the weights: the norms' epsilon, the side on which an image is padded before it
is halved, and the spacing of the frequencies that tell the time.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.attention import SelfAttention
from nelbo.models.blocks import DownLevel, Downsample
from nelbo.models.embedding import MAX_PERIOD
from nelbo.models.unet import UNet


class UnsupportedError(ValueError):
    """A network that ours cannot be."""


class DiffusersUNet(nn.Module):
    """A ``UNet2DModel`` of diffusers.

    Its weights are those of our U-Net under ``unet.``, so that they cannot end up in one without these
    details, nor the other way round.

    Args:
        shape: see :class:`~nelbo.models.unet.UNet`, as all that is not format_list here.
        out_channels: of the output.
        num_classes: of a class-conditional network.
        channels: width at the full resolution.
        channel_mult: width of every level.
        num_res_blocks: per level on the way down.
        attention_levels: levels with attention; 0 is the full resolution.
        dropout: in the residual blocks.
        use_scale_shift_norm: how the blocks are told the time.
        attention_head_dim: channels of every head; None for one head.
        norm_num_groups: of every norm.
        norm_eps: of every norm.
        downsample_padding: 1 pads all sides before halving; 0 pads the right and the bottom alone.
        freq_shift: the frequencies are spread over half the width less this.

    Raises:
        UnsupportedError: when the heads or the groups do not divide the channels.
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
                _divide("norm_num_groups", norm_num_groups, module.num_channels)
                module.num_groups, module.eps = norm_num_groups, norm_eps
            elif isinstance(module, SelfAttention) and attention_head_dim is not None:
                width = module.out.out_channels
                _divide("attention_head_dim", attention_head_dim, width)
                module.num_heads = width // attention_head_dim
            elif (
                downsample_padding == 0
                and isinstance(module, DownLevel)
                and isinstance(module.downsample, Downsample)
            ):
                module.downsample = RightDownsample(module.downsample.out_channels)

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B,) and (B,) int64 to (B, out_channels, H, W)."""
        return self.unet(x, c, label)


class RightDownsample(Downsample):
    """Halve the feature map, padding it on the right and at the bottom: TensorFlow's ``SAME``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.padding = (0, 0)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return super().forward(F.pad(input, (0, 1, 0, 1)))


def _divide(name: str, number: int, channels: int) -> None:
    if channels % number:
        raise UnsupportedError(f"{name}={number} does not divide the {channels} channels of a block")
