"""Measured costs of steps compared with closed forms and with the bound of each chain."""

import math

import pytest
import torch

import nelbo.evaluation.measure_step_costs as module
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import V
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.spacings import Even, Quadratic
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from nelbo.evaluation.measure_step_costs import measure_step_costs
from nelbo.evaluation.noise import ExampleNoise
from nelbo.models import MLP

# ------------------------------------------------------------------ a denoiser in closed form

STD, DIMS, SMALL_T = 0.5, 3, 6


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def closed_form(schedule, variance):
    """Expected costs of N(0, STD^2 I) data, from alpha_bar and with the density as decoder."""
    T = schedule.num_steps
    alpha_bar = schedule.table().sigmoid()
    mse = posterior_variance(schedule.level(torch.arange(1, T + 1)), STD)
    first = torch.full((T, T + 1), torch.inf, dtype=torch.float64)
    step = first[:, :T].clone()
    for j in range(T):
        for i in range(j):
            beta = 1 - alpha_bar[j] / alpha_bar[i]
            beta_tilde = beta * (1 - alpha_bar[i]) / (1 - alpha_bar[j])
            own = beta if isinstance(variance, FixedLarge) else beta_tilde
            weight = alpha_bar[i].sqrt() * beta / (1 - alpha_bar[j])  # of x_0 in the posterior mean
            step[i, j] = 0.5 * ((own / beta_tilde).log() + (beta_tilde + weight**2 * mse[j]) / own - 1.0)
        for second in range(j + 1, T + 1):
            own = 1 - alpha_bar[j]
            if variance.first_step == "beta_tilde" and second < T:
                own = (1 - alpha_bar[second] / alpha_bar[j]) * own / (1 - alpha_bar[second])
            first[j, second] = 0.5 * ((2 * math.pi * own).log() + mse[j] / own)
    return DIMS * first, DIMS * step


@pytest.mark.slow
@pytest.mark.parametrize("first_step", ["beta", "beta_tilde"])
@pytest.mark.parametrize("variance", [FixedLarge, FixedSmall])
def test_the_exact_denoiser_of_gaussian_data(variance, first_step):
    """Within three standard errors, estimated from repeated measurements."""
    schedule, variance, groups = CosineSchedule(SMALL_T), variance(first_step), 60
    bound = VariationalBound(Chain(schedule), GaussianDecoder())
    denoise = gaussian_denoiser((DIMS,), STD, variance)
    tables = [
        measure_step_costs(bound, denoise, STD * normal(40, DIMS, seed=seed), seed=seed)
        for seed in range(groups)
    ]
    for name, expected in zip(("first", "step"), closed_form(schedule, variance), strict=True):
        measured = torch.stack([getattr(table, name) for table in tables])
        assert torch.equal(measured.isinf().all(0), expected.isinf())
        assert torch.equal(measured.isinf().any(0), expected.isinf())
        possible = expected.isfinite()
        measured, expected = measured[:, possible], expected[possible]
        stderr = measured.std(0) / math.sqrt(groups)
        assert (stderr < 0.03 * expected.abs().clamp(min=1.0)).all()  # the draws say something
        assert ((measured.mean(0) - expected).abs() < 3 * stderr).all()


def test_the_prior_has_no_noise_in_it():
    schedule, x0 = CosineSchedule(SMALL_T), STD * normal(5, DIMS)
    bound = VariationalBound(Chain(schedule), GaussianDecoder())
    costs = measure_step_costs(bound, gaussian_denoiser((DIMS,), STD, FixedLarge()), x0)
    alpha_bar = schedule.table().sigmoid()
    spread = -(1 - alpha_bar).log() - alpha_bar
    expected = 0.5 * (DIMS * spread + alpha_bar * x0.square().sum(1).mean())
    torch.testing.assert_close(costs.prior, expected, rtol=1e-9, atol=0)
    assert torch.equal(costs.timesteps, torch.arange(1, SMALL_T + 1))


# ------------------------------------------------------------------ a network

T, SHAPE, EXAMPLES = 90, (1, 3, 4), 5
VARIANCES = {
    "learned, next": LearnedRange("beta_tilde"),
    "learned": LearnedRange("beta"),
    "small, next": FixedSmall("beta_tilde"),
    "large": FixedLarge(),
}
CHAINS = {
    "all": list(range(1, T + 1)),
    "even": Even().timesteps(CosineSchedule(T), 9).tolist(),
    "quadratic": Quadratic().timesteps(CosineSchedule(T), 20).tolist(),
    "late": [40, 77, 78],
    "next to last": [T - 1, T],
    "one": [3],
    "the last": [T],
}


def network(variance, num_classes=None):
    torch.manual_seed(0)
    channels = variance.output_channels(SHAPE[0])
    net = MLP(SHAPE, channels, num_classes, width=16, depth=1, dropout=0.0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Denoiser(net, V(), variance, TimestepConditioning(1000 / T)).eval()


def examples():
    levels = torch.randint(0, 17, (EXAMPLES, *SHAPE), generator=torch.Generator().manual_seed(1))
    return levels / 8.0 - 1.0


def direct(chain, bound, denoise, x0, seed, cond=None):
    """The mean bound of a chain, with the noise of the measurement at every step."""
    noise = ExampleNoise(seed, "step costs", torch.arange(len(x0)), x0).draw()
    own = VariationalBound(chain, bound.decoder, bound.clip)
    with torch.no_grad():
        return own.terms(denoise, x0, lambda i: noise, cond).total.double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, (-1.0, 1.0)], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("make", [CosineSchedule, LinearSchedule])
@pytest.mark.parametrize("name", VARIANCES)
def test_a_total_is_the_bound_of_the_chain_measured_directly(name, make, clip):
    """To the precision of float32, including the interpolation from 16 second levels."""
    schedule, x0, denoise = make(T), examples(), network(VARIANCES[name])
    bound = VariationalBound(Chain(schedule), DiscretizedGaussian(17), clip)
    costs = measure_step_costs(bound, denoise, x0, seed=3)
    for timesteps in CHAINS.values():
        chain = Chain(schedule, torch.tensor(timesteps))
        expected = direct(chain, bound, denoise, x0, seed=3)
        assert costs.total(chain.t()) == pytest.approx(expected, rel=3e-6), timesteps


def test_every_second_level_is_interpolated_well():
    schedule, x0, denoise = CosineSchedule(T), examples(), network(LearnedRange("beta_tilde"))
    bound = VariationalBound(Chain(schedule), DiscretizedGaussian(17))
    costs = measure_step_costs(bound, denoise, x0)
    for first, second in [(1, 2), (1, 3), (2, 40), (10, 89), (50, 60), (70, 90)]:
        chain = Chain(schedule, torch.tensor([first, second]))
        assert costs.total(chain.t()) == pytest.approx(direct(chain, bound, denoise, x0, 0), rel=3e-6)


@pytest.mark.slow
def test_chunks_do_not_matter(monkeypatch):
    x0, denoise = examples(), network(LearnedRange("beta_tilde"))
    bound = VariationalBound(Chain(CosineSchedule(T)), DiscretizedGaussian(17))
    whole = measure_step_costs(bound, denoise, x0)
    monkeypatch.setattr(module, "SCALARS_ON_CPU", 1000)
    for pairs_per_call in (2, 7, 10_000):  # fewer than the examples, not a multiple of them, all at once
        parts = measure_step_costs(bound, denoise, x0, pairs_per_call=pairs_per_call)
        for name in ("first", "step", "prior"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_a_condition_stays_with_its_example():
    x0, denoise = examples(), network(LearnedRange("beta_tilde"), num_classes=EXAMPLES)
    bound, cond = VariationalBound(Chain(CosineSchedule(T)), DiscretizedGaussian(17)), torch.arange(EXAMPLES)
    costs = measure_step_costs(bound, denoise, x0, cond, pairs_per_call=12)
    chain = Chain(CosineSchedule(T), torch.tensor([2, 30, 90]))
    expected = direct(chain, bound, denoise, x0, 0, cond)
    assert costs.total(chain.t()) == pytest.approx(expected, rel=3e-6)
    assert direct(chain, bound, denoise, x0, 0, cond.flip(0)) != pytest.approx(expected, rel=1e-3)


def test_progress_counts_t_evaluations_per_example():
    x0, rows, reported = examples(), [], []
    exact = gaussian_denoiser(SHAPE, STD, FixedLarge())

    def denoise(xt, level, cond):
        rows.append(len(xt))
        return exact(xt, level)

    bound = VariationalBound(Chain(CosineSchedule(T)), GaussianDecoder())
    measure_step_costs(bound, denoise, x0, pairs_per_call=64, progress=lambda *at: reported.append(at))
    assert sum(rows) == T * EXAMPLES
    assert max(rows) <= 64
    assert reported == [(sum(rows[: i + 1]), T * EXAMPLES) for i in range(len(rows))]
