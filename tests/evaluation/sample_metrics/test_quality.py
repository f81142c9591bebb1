"""Metrics compared with closed forms, and their symmetries."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from nelbo.data.digits import Digits
from nelbo.evaluation.sample_metrics import make_reference, quality_ledger, sample_quality
from nelbo.evaluation.sample_metrics.accumulator import FeatureAccumulator
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.evaluation.sample_metrics.quality import frechet_distance


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = Digits()
    return data, make_reference(data, "train", Pixels(), cache=str(tmp_path_factory.mktemp("cache")))


def values(data, split) -> torch.Tensor:
    return data.take(split, len(data.split(split))).x0


def closed_form(a, b) -> float:
    a, b = (x.flatten(1).double().numpy() for x in (a, b))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a)
    cross = scipy.linalg.sqrtm(root @ cov_b @ root)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(cross))


def gaussian(mean, std, n=50_000) -> FeatureAccumulator:
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.cholesky(torch.linalg.inv(torch.cov(x.T)))  # covariance exactly 1
    accumulator = FeatureAccumulator(len(mean), n)
    accumulator.add(x * std + mean, torch.arange(n))
    return accumulator


def test_frechet_distance_of_gaussians():
    a = gaussian(torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 2.0, 0.5]))
    b = gaussian(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([3.0, 1.0, 0.5]))
    assert frechet_distance(a, b) == pytest.approx((1 + 4) + (4 + 1 + 0), abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_fd_pixels_is_the_closed_form(digits):
    data, reference = digits
    x0 = 0.7 * values(data, "test") + 0.1 * torch.randn(180, 1, 8, 8, generator=torch.Generator())
    levels = ((x0 + 1) * 8).round().clamp(0, 16) / 8 - 1
    measured = sample_quality(x0, reference, Pixels(), batch_size=50)
    # pixels at the rim never change, so the root of the covariance's product is of no full rank
    assert measured["fd_pixels"] == pytest.approx(closed_form(levels, values(data, "train")), abs=1e-4)


def test_metrics_of_a_sample_that_is_not_finite_are_nan(digits):
    data, reference = digits
    x0 = values(data, "test").clone()
    x0[3, 0, 2, 2] = math.nan
    assert all(math.isnan(value) for value in sample_quality(x0, reference, Pixels()).values())


def test_levels_and_values_are_the_same_samples(digits):
    data, reference = digits
    x0 = values(data, "test")
    levels = ((x0 + 1) * 8).round().to(torch.uint8)
    assert sample_quality(levels, reference, Pixels()) == sample_quality(x0, reference, Pixels())


@pytest.mark.slow
def test_the_data_itself_is_perfect_and_noise_is_far_off(digits):
    data, reference = digits
    itself = sample_quality(values(data, "train"), reference, Pixels())
    assert itself["fd_pixels"] == pytest.approx(0.0, abs=1e-4)
    assert itself["mmd_pixels"] == pytest.approx(0.0, abs=1e-2)
    assert itself["precision_pixels"] == itself["recall_pixels"] == 1.0
    held_out = sample_quality(values(data, "test"), reference, Pixels())
    noise = sample_quality(torch.randn(180, 1, 8, 8, generator=torch.Generator()), reference, Pixels())
    assert noise["fd_pixels"] > 20 * held_out["fd_pixels"]
    assert noise["mmd_pixels"] > 20 * abs(held_out["mmd_pixels"])
    assert noise["precision_pixels"] < 0.1 < 0.8 < held_out["precision_pixels"]


def test_samples_that_are_not_finite_give_nan(tmp_path):
    from nelbo.data.gaussian import Gaussian

    data = Gaussian()
    reference = make_reference(data, "val", Pixels(), cache=str(tmp_path))
    x0 = torch.randn(20, *data.spec.shape)
    assert all(math.isfinite(value) for value in sample_quality(x0, reference, Pixels()).values())
    x0[3] = torch.inf
    broken = sample_quality(x0, reference, Pixels())
    assert len(broken) == 4
    assert all(math.isnan(value) for value in broken.values())


def test_without_stored_features_only_the_frechet_distance_is_computed(tmp_path):
    data = Digits()
    reference = make_reference(data, "test", Pixels(), pairwise=0, cache=str(tmp_path))
    assert sample_quality(values(data, "val"), reference, Pixels()).keys() == {"fd_pixels"}


def test_too_few_samples_raise(digits):
    data, reference = digits
    with pytest.raises(ValueError, match="the quality of 3 samples is not defined: draw at least 4"):
        sample_quality(values(data, "test")[:3], reference, Pixels())


def test_quality_ledger_has_reference_and_settings(digits):
    ledger = quality_ledger(digits[1], 1000, sampler="DDIM", steps=50)
    assert ledger["reference"]["split"] == "train"
    assert ledger["reference"]["examples"] == "1437 of 1437"
    assert (ledger["num_samples"], ledger["steps"]) == (1000, 50)
