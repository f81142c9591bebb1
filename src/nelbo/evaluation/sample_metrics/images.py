"""Features of examples as they are stored, so that metrics in training and of stored samples are the same."""

import torch
from torch import Tensor

from nelbo.data.spec import DataSpec
from nelbo.evaluation.sample_metrics.features.base import Features


def features_of(x0: Tensor, features: Features, spec: DataSpec) -> Tensor:
    """Features (B, F) of values or level indices (B, *shape), rounded as they are stored.

    NaN for an example that is not finite. Stored as a level it would be valid, and the metrics of a diverged
    model would be finite.
    """
    finite = x0.isfinite().flatten(1).all(1)
    return features(spec.as_stored(x0)).masked_fill(~finite[:, None], torch.nan)
