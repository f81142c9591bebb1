"""What features look at: images as the 8-bit pixels that they would be saved as.

So a figure is the same whether it is measured in training or on the files that sample.py wrote.
"""

import torch
from torch import Tensor

from nelbo.evaluation.sample_metrics.features.base import Features


def as_seen(x0: Tensor) -> Tensor:
    """Values (B, C, H, W) in [-1, 1] as uint8 pixels on their device; data that is no image as it is."""
    if x0.ndim != 4 or x0.dtype == torch.uint8:
        return x0
    return (127.5 * (x0 + 1.0)).round().clamp(0, 255).to(torch.uint8)


def features_of(x0: Tensor, features: Features) -> Tensor:
    """Features (B, F) of values or pixels (B, ...), as they are seen.

    NaN for an example that is not finite: as a pixel it would be a black one, and a model that has diverged
    would have a distance from the data like any other.
    """
    finite = x0.isfinite().flatten(1).all(1)
    return features(as_seen(x0)).masked_fill(~finite[:, None], torch.nan)
