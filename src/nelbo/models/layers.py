"""Conventions that all networks of the DDPM family share."""

import math
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def conv(dims: int, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> Conv:
    """A convolution over ``dims`` (1 to 3) spatial dimensions, padded so that stride 1 keeps their sizes."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return kind(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over 32 groups, or the largest divisor of 32 that divides ``channels``.

    All published widths are multiples of 32. With 32 channels or fewer every group is one channel, so an
    offset added just before the norm is removed by it (see ``ResidualBlock``).

    PyTorch accumulates the statistics in float32 for every input dtype, and CUDA autocast runs the whole
    operation in float32.
    """
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zeroed(module: ModuleT) -> ModuleT:
    """Set all parameters of the last layer of a residual branch to 0: the block starts as the identity.

    Ho et al. 2020 (DDPM), released code; Dhariwal & Nichol 2021.
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
