"""The Gaussian of a set from sums, for any distribution over batches and ranks."""

import numpy as np
import pytest
import torch

from nelbo.evaluation.sample_metrics.accumulator import FeatureAccumulator

N, F = 103, 7
TENSORS = ("count", "total", "outer", "rows")
X = torch.randn(N, F, generator=torch.Generator().manual_seed(0)) + 3.0


def accumulator_of(index, kept=0) -> FeatureAccumulator:
    accumulator = FeatureAccumulator(F, N, kept)
    for batch in index.split(10):
        accumulator.add(X[batch], batch)
    return accumulator


def test_mean_and_covariance_are_those_of_the_set():
    accumulator = accumulator_of(torch.randperm(N, generator=torch.Generator().manual_seed(1)))
    x = X.double().numpy()
    np.testing.assert_allclose(accumulator.mean(), x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(accumulator.covariance(), np.cov(x, rowvar=False), atol=1e-13)


@pytest.mark.parametrize("ranks", [2, 3, 200])
def test_ranks_add_up_to_the_same(ranks):
    parts = [accumulator_of(torch.arange(N)[rank::ranks], kept=20) for rank in range(ranks)]
    whole = accumulator_of(torch.arange(N), kept=20)
    others = iter([getattr(part, name) for name in TENSORS for part in parts[1:]])

    def add(sums):
        for _ in parts[1:]:
            sums += next(others)

    parts[0].all_reduce_sum(add)
    for name in TENSORS:
        torch.testing.assert_close(getattr(parts[0], name), getattr(whole, name), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("kept", [0, 1, 4, 50, 102, 103, 1000])
def test_stored_features_are_evenly_spaced_among_all(kept):
    rows = accumulator_of(torch.arange(N), kept).rows
    number = [int((row == X).all(1).nonzero()) for row in rows]
    assert len(number) == min(kept, N)
    assert number == sorted(set(number))
    if 0 < kept < N:
        gaps = torch.tensor(number).diff()
        assert number[0] == 0
        assert (gaps >= N // kept).all()
        assert (gaps <= -(-N // kept)).all()


def test_is_finite_detects_nan():
    accumulator = accumulator_of(torch.arange(N))
    assert accumulator.is_finite()
    accumulator.add(torch.full((1, F), torch.nan), torch.tensor([0]))
    assert not accumulator.is_finite()
