"""Removal of the mean curve along the chain from spread draws."""

import pytest
import torch

from nelbo.evaluation.stratified_draws import TREND_DRAWS, deviations_over_ranges, without_trend


def steps(n: int, draws: int) -> torch.Tensor:
    return torch.randint(2, 1001, (n, draws), generator=torch.Generator().manual_seed(0))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_line_in_log_t_is_removed():
    t = steps(50, 6)
    assert without_trend(t, 3.0 - 0.2 * t.double().log()).abs().max() < 1e-9


@pytest.mark.parametrize("n", [4, 7, 30, 200])
def test_variance_of_independent_draws_is_slightly_larger(n):
    repeats = [without_trend(torch.rand(n, 4) * 998 + 2, torch.randn(n, 4).double()) for _ in range(40)]
    assert 0.9 < torch.stack(repeats).square().mean() < 1.0 + 6.0 / min(4 * n, TREND_DRAWS)


def test_covariance_of_the_draws_of_an_example_is_kept():
    """They have a common part of variance 4, and noise of variance 1."""
    t, common = steps(3000, 2), 2.0 * noise(3000, 1)
    residual = without_trend(t, common + noise(3000, 2) + 100.0 / t)
    assert torch.cov(residual.T)[0, 1] == pytest.approx(4.0, rel=0.1)
    deviations = deviations_over_ranges(residual)
    assert deviations is not None
    # of the sum of two
    assert deviations.square().sum(1).mean() == pytest.approx(4.0, rel=0.3)


def test_a_curve_far_larger_than_the_noise_is_removed():
    t, e = steps(400, 6), noise(400, 6)
    curve = 1000.0 / (t + 20.0)  # about the shape of L_t
    assert without_trend(t, curve + e).std() < 1.1
    assert (curve + e).std() > 5.0


def test_equal_and_single_timesteps_have_finite_differences():
    t = torch.full((10, 2), 5)
    t[0, 0] = 900
    residual = without_trend(t, noise(10, 2))
    assert residual.isfinite().all()
    assert residual.abs().max() < 5.0


def test_few_draws_are_unchanged():
    nats = noise(1, 3)
    assert torch.equal(without_trend(steps(1, 3), nats), nats)
