"""The adaptive schedule, against closed forms of Gaussian data with the exact denoiser."""

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import AdaptiveSchedule, LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedSmall

STD, SHAPE = 0.7, (3,)


def make(**arguments):
    return AdaptiveSchedule(None, logsnr_max=6.0, logsnr_min=-5.0, **arguments)


def integrand(schedule, u):
    """Of the bound, exact: nats per unit of u."""
    point = schedule.point(u)
    return 0.5 * 3 * point.rate * point.level.snr * posterior_variance(point.level, STD)


def uniform(n, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapted(rounds=4, **arguments):
    schedule = make(floor=1e-4, decay=0.0, **arguments)
    for seed in range(rounds):
        u = uniform(50_000, seed)
        schedule.update(u, integrand(schedule, u))
        schedule.reshape()
    return schedule


@pytest.fixture(scope="module")
def schedule():
    return adapted()


def one_draw_estimates(schedule, u):
    """(B,) the denoising part of the bound from one draw per example, in nats."""
    x0, eps = STD * normal(len(u), *SHAPE, seed=1), normal(len(u), *SHAPE, seed=2)
    chain = ContinuousTime(schedule, bins=1)
    step = chain.step(torch.full((len(u),), 2), u)
    denoise = gaussian_denoiser(SHAPE, STD, FixedSmall())
    return VariationalBound(chain, GaussianDecoder()).term(
        step, x0, denoise(diffuse(x0, eps, step.t), step.t)
    )


def test_the_integrand_becomes_constant_in_u(schedule):
    nats = integrand(schedule, uniform(20_000, seed=9))
    assert (nats.std() / nats.mean()).item() < 0.02
    before = integrand(make(), uniform(20_000, seed=9))
    assert (before.std() / before.mean()).item() > 0.5


def test_the_ends_stay_and_the_curve_decreases(schedule):
    ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr
    torch.testing.assert_close(ends, torch.tensor([6.0, -5.0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert (schedule.level(torch.linspace(0.0, 1.0, 5001, dtype=torch.float64)).logsnr.diff() < 0).all()


def test_the_integral_of_the_bound_does_not_change(schedule):
    """Gauss-Legendre quadrature between the edges of the bins, against the line before training."""
    nodes, weights = torch.tensor(legendre(12), dtype=torch.float64).T

    def integral(schedule):
        low, width = schedule.positions[:-1, None], schedule.positions.diff()[:, None]
        return (width * weights * integrand(schedule, (low + width * nodes).flatten()).view(-1, 12)).sum()

    assert integral(schedule).item() == pytest.approx(integral(make()).item(), rel=1e-9)


def legendre(order):
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(order)
    return [(0.5 * (a + 1.0), 0.5 * b) for a, b in zip(x, w, strict=True)]


def test_the_variance_of_one_draw_is_that_of_examples_and_noise_alone(schedule):
    """The error is a chi-square with 3 degrees of freedom at all levels: variance 2/3 mean^2."""
    u = uniform(200_000, seed=5)
    nats = one_draw_estimates(schedule, u)
    expected = 2.0 / 3.0 * nats.mean() ** 2
    assert nats.var().item() == pytest.approx(expected.item(), rel=0.03)
    line = one_draw_estimates(LinearLogSNRSchedule(None, logsnr_max=6.0, logsnr_min=-5.0), u)
    assert line.mean().item() == pytest.approx(nats.mean().item(), rel=0.02)
    assert line.var() > 1.5 * nats.var()


def test_costs_from_noisy_draws_converge_to_the_same_curve(schedule):
    noisy = make(floor=1e-4, decay=0.9)
    for seed in range(8):
        for batch in uniform(20_000, seed).split(2000):
            noisy.update(batch, one_draw_estimates(noisy, batch))
        noisy.reshape()
    torch.testing.assert_close(noisy.positions, schedule.positions, rtol=0, atol=0.02)


def test_the_curve_moves_only_when_it_is_reshaped_and_only_when_every_bin_was_drawn():
    schedule = make(bins=2)
    line = schedule.positions.clone()
    schedule.update(torch.tensor([0.1]), torch.tensor([5.0]))
    schedule.reshape()
    assert torch.equal(schedule.positions, line)
    schedule.update(torch.tensor([0.6]), torch.tensor([15.0]))
    assert torch.equal(schedule.positions, line)
    schedule.reshape()
    assert schedule.positions.tolist() == pytest.approx([0.0, 0.99 * 0.25 + 0.005, 1.0])
    moved = schedule.positions.clone()
    schedule.reshape()
    assert torch.equal(schedule.positions, moved)


def test_a_bin_without_cost_keeps_its_share_of_the_floor():
    schedule = make(bins=4, floor=0.2)
    schedule.update(torch.tensor([0.1, 0.3, 0.6, 0.9]), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    schedule.reshape()
    assert schedule.positions.diff().tolist() == pytest.approx([0.05, 0.05, 0.05, 0.85])


def test_the_state_is_in_the_checkpoint(schedule):
    loaded = make(floor=1e-4, decay=0.0)
    loaded.load_state_dict(schedule.state_dict())
    u = uniform(100)
    assert torch.equal(loaded.level(u).logsnr, schedule.level(u).logsnr)


def test_a_module_in_half_precision_keeps_the_curve_in_float64():
    schedule = adapted(rounds=1)
    before = schedule.level(uniform(100)).logsnr
    schedule.half()
    assert torch.equal(schedule.level(uniform(100)).logsnr, before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_steps": 10}, "num_steps=10"),
        ({"bins": 0}, "bins=0"),
        ({"decay": 1.0}, "decay=1"),
        ({"floor": 0.0}, "floor=0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=rf"schedule\.{named}"):
        AdaptiveSchedule(**arguments)
