"""Quality of samples: distances between their features and those of the data."""

from nelbo.evaluation.sample_metrics.accumulator import FeatureAccumulator
from nelbo.evaluation.sample_metrics.features import Features
from nelbo.evaluation.sample_metrics.images import features_of
from nelbo.evaluation.sample_metrics.quality import quality, quality_ledger, sample_quality
from nelbo.evaluation.sample_metrics.reference import Reference, make_reference

__all__ = [
    "FeatureAccumulator",
    "Features",
    "Reference",
    "features_of",
    "make_reference",
    "quality",
    "quality_ledger",
    "sample_quality",
]
