"""Distances between samples and data, by the formulas of torch-fidelity.

    Frechet distance    of Gaussians fitted to the features (Heusel et al. 2017)
    kernel distance     squared MMD under a cubic kernel (Binkowski et al. 2018)
    precision, recall   share of one set within the 3-nearest-neighbour balls of the other
                        (Kynkaanniemi et al. 2019)

The last two compare pairs of examples, among those whose features the accumulators store.
"""

import math
from typing import Any

import torch
from torch import Tensor

from nelbo.evaluation.sample_metrics.accumulator import FeatureAccumulator
from nelbo.evaluation.sample_metrics.features import Features
from nelbo.evaluation.sample_metrics.images import features_of
from nelbo.evaluation.sample_metrics.reference import Reference

FEWEST = 4  # an example and its 3 neighbours
SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance, as published


def quality(samples: FeatureAccumulator, reference: Reference, features: Features) -> dict[str, float]:
    """The metrics by name: ``fid``, ``kid``, ... or ``fd_pixels``, ``mmd_pixels``, ...

    All are NaN if a feature of a sample is not finite. The kernel distance, precision and recall are omitted
    if no features of single examples are stored.

    Args:
        samples: features of all samples.
        reference: features of the data.
        features: of both.

    Raises:
        ValueError: for fewer than 4 samples.
    """
    if samples.count < FEWEST:
        raise ValueError(
            f"the quality of {int(samples.count)} samples is not defined: draw at least {FEWEST}"
        )
    names, real = features.names, reference.accumulator
    pairwise = min(len(samples.rows), len(real.rows)) >= FEWEST
    if not samples.is_finite():
        chosen = [names.frechet, *([names.kernel, names.precision, names.recall] if pairwise else [])]
        return dict.fromkeys(chosen, math.nan)
    metrics = {names.frechet: frechet_distance(samples, real)}
    if pairwise:
        precision, recall = precision_recall(samples.rows, real.rows)
        metrics[names.kernel] = kernel_distance(samples.rows, real.rows)
        metrics |= {names.precision: precision, names.recall: recall}
    return metrics


def sample_quality(
    images: Tensor, reference: Reference, features: Features, batch_size: int = 256
) -> dict[str, float]:
    """The metrics of N samples, by name.

    Args:
        images: (N, ...) values, or level indices of an integer type; on any device.
        reference: of the data, with the same features; its device is that of the computation.
        features: to compare.
        batch_size: images per call of the features.
    """
    device = reference.accumulator.rows.device
    accumulator = FeatureAccumulator(reference.accumulator.dims, len(images), reference.pairwise, device)
    for index in torch.arange(len(images)).split(batch_size):
        accumulator.add(features_of(images[index].to(device), features, reference.spec), index)
    return quality(accumulator, reference, features)


def quality_ledger(reference: Reference, num_samples: int, **drawn: Any) -> dict[str, Any]:
    """Everything that metrics of sample quality depend on besides the network, as plain values.

    Args:
        reference: the features of the data.
        num_samples: number of samples; few samples increase every distance.
        drawn: settings of the samples: sampler, steps, seed, weights.
    """
    return {"reference": dict(reference.metadata), "num_samples": num_samples, **drawn}


def frechet_distance(a: FeatureAccumulator, b: FeatureAccumulator) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al. 2017)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    fitted = [{"mu": x.mean().cpu().numpy(), "sigma": x.covariance().cpu().numpy()} for x in (a, b)]
    return fid_statistics_to_metric(*fitted, verbose=False)[KEY_METRIC_FID]


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Mean over subsets of the unbiased squared MMD of features (n, F) and (m, F); may be negative."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(SUBSET_SIZE, len(a), len(b))
    subsets = 1 if len(a) == len(b) == size else SUBSETS  # a single subset holds all
    measured = kid_features_to_metric(a, b, kid_subsets=subsets, kid_subset_size=size, verbose=False)
    return measured[KEY_METRIC_KID_MEAN]


def precision_recall(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Precision and recall of features (n, F) and (m, F), each in [0, 1]."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    # in batches: the full distance matrix would need gigabytes
    measured = prc_features_to_metric(samples, real, save_cpu_ram=True, prc_batch_size=1000, verbose=False)
    return measured[KEY_METRIC_PRECISION], measured[KEY_METRIC_RECALL]
