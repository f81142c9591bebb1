"""Features of examples, in which samples and data are compared."""

from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames
from nelbo.evaluation.sample_metrics.features.inception import Inception
from nelbo.evaluation.sample_metrics.features.pixels import Pixels
from nelbo.evaluation.sample_metrics.features.torch_module import TorchModule

__all__ = ["Features", "Inception", "MetricNames", "Pixels", "TorchModule"]
