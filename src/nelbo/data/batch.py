"""Batches of examples."""

from typing import NamedTuple

import torch
from torch import Tensor

from nelbo.cond import Cond, to_device


class Batch(NamedTuple):
    """A batch of B examples.

    Loaders yield quantised data as level indices, which are smaller than floats;
    ``DataModule.on_after_batch_transfer`` converts them to values on the device.
    """

    x0: Tensor
    """``(B, *shape)``: level indices of an integer type, or float32 values."""
    cond: Cond | None
    """The input of conditional networks: ``(B,)`` int64 class labels, or a mapping of tensors ``(B, ...)``;
    None if the data has none."""
    index: Tensor
    """``(B,)`` int64: the position of each example in its split."""

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device."""
        return Batch(self.x0.to(device), to_device(self.cond, device), self.index.to(device))
