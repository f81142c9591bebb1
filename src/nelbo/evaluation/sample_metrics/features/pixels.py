"""The values themselves."""

from torch import Tensor

from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames


class Pixels(Features):
    """Flattened values: for small images, where networks trained on photographs mean little.

    They see means and correlations of pixels and nothing that depends on more than two of them.
    """

    def __init__(self) -> None:
        self.names = MetricNames.of("pixels")
        self.key = "pixels"

    def __call__(self, x: Tensor) -> Tensor:
        """(B, F) float32, in the order of the examples' own dimensions."""
        return x.flatten(1)
