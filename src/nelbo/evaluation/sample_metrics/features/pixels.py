"""Values as features."""

from torch import Tensor

from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames


class Pixels(Features):
    """Flattened values, for small images that differ from the photographs networks are trained on.

    Their Frechet distance depends on means and covariances of pixels only.
    """

    def __init__(self) -> None:
        self.names = MetricNames.of("pixels")
        self.key = "pixels"

    def __call__(self, x: Tensor) -> Tensor:
        """(B, F) float32, flattened in the order of the dimensions."""
        return x.flatten(1)
