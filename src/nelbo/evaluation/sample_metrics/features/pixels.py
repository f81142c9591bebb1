"""The values themselves."""

import torch
from torch import Tensor

from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames


class Pixels(Features):
    """Flattened values in [-1, 1]: for small images, where networks trained on photographs mean little.

    They see means and correlations of pixels and nothing that depends on more than two of them.
    """

    def __init__(self) -> None:
        self.names = MetricNames.of("pixels")
        self.key = "pixels"

    def __call__(self, x: Tensor) -> Tensor:
        """(B, F) float32, in the order of the examples' own dimensions."""
        values = 2.0 * x.float() / 255.0 - 1.0 if x.dtype == torch.uint8 else x
        return values.flatten(1)
