"""Conventions that all networks of the DDPM family share."""

import math
from typing import TypeVar

from torch import Tensor, nn

from nelbo.randomness import bernoulli, row_keys

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


class Dropout(nn.Dropout):
    """Dropout whose masks in a training run depend neither on the batch size nor on the number of processes.

    Srivastava et al. 2014. The mask of a row is a function of its key, see :func:`set_dropout_keys`, and the
    probability ``p`` is rounded down to a multiple of 2^-16. Without keys, torch draws the mask.

    Attributes:
        keys: (B,) int64 keys of the rows in the current training step.
    """

    keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ...), or (B n, ...) with n rows for each key, to the same shape."""
        if not self.training or self.keys is None:
            return super().forward(x)
        p = math.floor(self.p * 2**16) / 2**16
        dropped = bernoulli(self.keys, x.numel() // len(self.keys), p)
        # in place, because masked_fill does not keep the memory format of x
        return (x / (1.0 - p)).masked_fill_(dropped.reshape(x.shape), 0.0)


def set_dropout_keys(network: nn.Module, key: tuple[int | str, ...], row: Tensor) -> None:
    """Give each row its mask in each :class:`Dropout` of a network, until :func:`unset_dropout_keys`.

    Args:
        network: whose layers are numbered in the order of ``network.modules()``.
        key: of the training step, beginning with the run's seed.
        row: (B,) int64 rows of the global batch, on the device of the network.
    """
    layers = [module for module in network.modules() if isinstance(module, Dropout) and module.p > 0.0]
    if layers:
        for layer, keys in zip(layers, row_keys(key, row, len(layers)), strict=True):
            layer.keys = keys


def unset_dropout_keys(network: nn.Module) -> None:
    """Let each :class:`Dropout` of a network draw from torch's generator."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.keys = None
