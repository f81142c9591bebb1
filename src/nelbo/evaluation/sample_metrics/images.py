"""What features look at: examples as they are after being stored and read back.

So a figure is the same whether it is measured in training or on the files that sample.py wrote.
"""

import torch
from torch import Tensor

from nelbo.data.spec import DataSpec
from nelbo.evaluation.sample_metrics.features.base import Features


def features_of(x0: Tensor, features: Features, spec: DataSpec) -> Tensor:
    """Features (B, F) of values or level indices (B, *shape), as they are stored.

    NaN for an example that is not finite: as a level it would be the first one, and a model that has diverged
    would have a distance from the data like any other.
    """
    finite = x0.isfinite().flatten(1).all(1)
    return features(spec.as_stored(x0)).masked_fill(~finite[:, None], torch.nan)
