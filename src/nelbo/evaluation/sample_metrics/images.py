"""What features look at: images as the 8-bit pixels that they would be saved as.

So a figure is the same whether it is measured in training or on the files that sample.py wrote.
"""

import torch
from torch import Tensor


def as_seen(x0: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Values (B, C, H, W) in [low, high] as uint8 pixels on their device; data that is no image as it is."""
    if x0.ndim != 4 or x0.dtype == torch.uint8:
        return x0
    return (255.0 * (x0 - low) / (high - low)).round().clamp(0, 255).to(torch.uint8)
