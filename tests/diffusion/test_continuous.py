"""Continuous time: the bound as an integral over u, against closed forms and finite chains."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, ContinuousTime, LevelChain, full_chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses import VLB, NoisyBatch, Simple
from nelbo.diffusion.noise_conditioning import LogSNRConditioning
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import (
    CosineSchedule,
    LearnedEnds,
    LearnedNet,
    LinearLogSNRSchedule,
    NoiseSchedule,
)
from nelbo.diffusion.spacings import Even
from nelbo.diffusion.variances import FixedSmall
from nelbo.evaluation.measure_step_costs import measure_step_costs

STD, SHAPE = 0.7, (3,)
LINE = LinearLogSNRSchedule(None, logsnr_max=6.0, logsnr_min=-5.0)


class Monotone(NoiseSchedule):
    """A random increasing map of [0, 1] to itself between the ends 6 and -5 of a line."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        weights = torch.rand(4, generator=g, dtype=torch.float64)
        self.weights, self.powers = weights / weights.sum(), torch.randint(1, 6, (4,), generator=g).double()
        super().__init__(None)

    def logsnr(self, u):
        return 6.0 - 11.0 * (self.weights * u[..., None] ** self.powers).sum(-1)


def exact_integrand(level, std=STD, dims=3):
    """E|eps - eps_hat|^2 / 2 of the exact denoiser, per unit of -logsnr: SNR Var(x_0 | x_t) / 2."""
    return 0.5 * dims * level.snr * posterior_variance(level, std)


def integral(schedule, order=40, bins=100):
    """The denoising part of the bound, by Gauss-Legendre quadrature in every bin of the chain's own steps."""
    chain, nodes = ContinuousTime(schedule, bins), torch.tensor(legendre(order)).T
    total = torch.tensor(0.0, dtype=torch.float64)
    for position, weight in nodes.T.tolist():
        step = chain.step(torch.arange(2, bins + 2), torch.full((bins,), position, dtype=torch.float64))
        total = total + weight * (step.width * step.rate * exact_integrand(step.t)).sum()
    return total


def legendre(order):
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(order)
    return [(0.5 * (a + 1.0), 0.5 * b) for a, b in zip(x, w, strict=True)]


def closed_form(clean, noisy, std=STD, dims=3):
    """int 1/2 SNR Var(x_0 | x_t) dlogsnr = dims/2 log((1 + std^2 SNR_clean) / (1 + std^2 SNR_noisy))."""
    return 0.5 * dims * (math.log1p(std**2 * math.exp(clean)) - math.log1p(std**2 * math.exp(noisy)))


def bound_of(chain):
    return VariationalBound(chain, GaussianDecoder())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ the integral


def test_the_denoising_integral_of_gaussian_data_is_its_closed_form():
    assert integral(LINE).item() == pytest.approx(closed_form(6.0, -5.0), rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_integral_does_not_depend_on_the_interior_of_the_schedule(seed):
    assert integral(Monotone(seed)).item() == pytest.approx(closed_form(6.0, -5.0), rel=1e-9)


def test_finite_chains_approach_the_integral_from_above():
    """KL of the exact reverse means, with the posterior variance: 1/2 sum (SNR_s - SNR_t) Var(x_0 | x_t)."""
    gaps = []
    for T in (4, 16, 64, 256, 1024):
        level = LevelChain(LINE, torch.linspace(0.0, 1.0, T + 1, dtype=torch.float64)).level(
            torch.arange(1, T + 2)
        )
        t = NoiseLevel(level.t[1:], level.logsnr[1:])
        terms = 0.5 * 3 * (level.snr[:-1] - t.snr) * posterior_variance(t, STD)
        gaps.append(terms.sum().item() - closed_form(6.0, -5.0))
    assert all(a > b > 0.0 for a, b in itertools.pairwise(gaps))
    assert gaps[-1] == pytest.approx(gaps[-2] / 4.0, rel=0.02)


@pytest.mark.parametrize("bins", [1, 7, 100])
def test_a_step_of_continuous_time_is_an_unbiased_sample_of_its_bin(bins):
    """Means over positions and noise of the bound's own terms, against quadrature of the exact integrand."""
    chain = ContinuousTime(LINE, bins)
    n, i = 20000, 2 + bins // 2
    index = torch.full((n,), i)
    step = chain.step(index, torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    x0, eps = STD * normal(n, *SHAPE, seed=2), normal(n, *SHAPE, seed=3)
    denoise = gaussian_denoiser(SHAPE, STD, FixedSmall())
    nats = bound_of(chain).term(step, x0, denoise(diffuse(x0, eps, step.t), step.t))
    expected = closed_form(LINE.level(step.t.t.new_tensor((i - 2) / bins)).logsnr.item(), 0.0) - closed_form(
        LINE.level(step.t.t.new_tensor((i - 1) / bins)).logsnr.item(), 0.0
    )
    stderr = nats.std().item() / math.sqrt(n)
    assert nats.mean().item() == pytest.approx(expected, abs=4.0 * stderr)


def test_the_bound_of_a_long_chain_is_that_of_continuous_time():
    denoise, x0 = gaussian_denoiser(SHAPE, STD, FixedSmall("beta")), STD * normal(64, *SHAPE)
    continuous, finite = (
        bound_of(chain).terms(denoise, x0, lambda i: normal(64, *SHAPE, seed=i))
        for chain in (
            ContinuousTime(LINE, 400),
            LevelChain(LINE, torch.linspace(0.0, 1.0, 401, dtype=torch.float64)),
        )
    )
    assert torch.equal(continuous.prior, finite.prior)
    torch.testing.assert_close(continuous.reconstruction, finite.reconstruction)
    gap = (finite.denoising.sum(1) - continuous.denoising.sum(1)).mean().item()
    assert abs(gap) < 0.05 * continuous.denoising.sum(1).mean().item()


# ------------------------------------------------------------------ schedules


def test_continuous_time_runs_between_finite_ends(make_continuous):
    schedule = make_continuous(half_bin=1 / 255)
    u = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    logsnr = schedule.level(u).logsnr
    assert logsnr.isfinite().all()
    assert (logsnr.diff() <= 0).all()
    assert logsnr[0].item() <= 13.4
    assert logsnr[-1].item() >= -21.0


def test_the_rate_is_the_slope_of_the_curve(make_continuous):
    schedule = make_continuous(half_bin=1 / 255)
    u = torch.linspace(0.02, 0.9, 50, dtype=torch.float64)
    h = 1e-6
    difference = (schedule.level(u - h).logsnr - schedule.level(u + h).logsnr) / (2 * h)
    point = schedule.point(u)
    torch.testing.assert_close(point.rate, difference, rtol=1e-6, atol=1e-6)
    assert torch.equal(point.level.logsnr, schedule.level(u).logsnr)


def test_rates_are_available_in_inference_mode(make_continuous):
    schedule = make_continuous(half_bin=1 / 255)
    with torch.inference_mode():
        point = schedule.point(torch.tensor([0.25, 0.5], dtype=torch.float64))
    assert (point.rate > 0).all()


def test_the_position_of_a_level_is_the_inverse_of_the_curve_in_continuous_time(make_continuous):
    schedule = make_continuous(half_bin=1 / 255)
    u = torch.linspace(0.0, 0.9, 10, dtype=torch.float64)
    torch.testing.assert_close(schedule.at_logsnr(schedule.level(u).logsnr), u, rtol=0, atol=1e-9)


def test_every_spacing_has_levels_of_continuous_time(make_spacing, random_costs):
    spacing = make_spacing(random_costs(12))
    if "Optimal" in type(spacing).__name__:
        with pytest.raises(ValueError, match=r"spacing=optimal chooses from timesteps.*or karras"):
            spacing.chain(LINE, 8)
        return
    chain = spacing.chain(LINE, 8)
    assert isinstance(chain, LevelChain)
    assert chain.num_steps == 8
    assert chain.t()[-1] == 1.0
    with pytest.raises(ValueError, match=r"sampler\.steps=null.*has no number of timesteps"):
        spacing.chain(LINE, None)


def test_steps_of_continuous_time_are_not_those_of_a_sampler(make_sampler):
    """They all end in data: a sampler would go there from the first one on."""
    denoise, xT = gaussian_denoiser(SHAPE, STD, FixedSmall()), normal(4, *SHAPE)
    with pytest.raises(ValueError, match="a chain of finitely many steps is needed, not ContinuousTime"):
        make_sampler().sample(denoise, full_chain(LINE), xT, lambda i: xT)  # pyright: ignore


def test_the_two_kinds_of_time_have_chains_of_their_own():
    with pytest.raises(ValueError, match="is in continuous time and has no timesteps"):
        Chain(LINE)
    for make in (ContinuousTime, lambda schedule: LevelChain(schedule, torch.tensor([1.0]))):
        with pytest.raises(ValueError, match="CosineSchedule has 10 timesteps"):
            make(CosineSchedule(10))
    assert not isinstance(full_chain(LINE), Chain)


def test_costs_of_steps_are_those_of_timesteps():
    x0 = normal(2, *SHAPE)
    chain = Even().chain(LINE, 4)
    with pytest.raises(ValueError, match="is in continuous time and has no timesteps"):
        measure_step_costs(bound_of(chain), gaussian_denoiser(SHAPE, STD, FixedSmall()), x0)


# ------------------------------------------------------------------ learned schedules


class Net(torch.nn.Module):
    """A network with a trainable scale, which uses its noise level."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, xt, c, cond):
        return self.scale * xt * torch.cos(c.double() / 300.0)[:, None]


def loss_of(schedule, x0, eps, u, loss, weight=1.0):
    """The losses (B,) at u, through the public parts."""
    chain = full_chain(schedule)
    bins = chain.num_steps - 1
    index = (u * bins).long().clamp(max=bins - 1)
    step = chain.step(index + 2, u * bins - index)
    denoiser = Denoiser(Net(), Eps(), FixedSmall(), LogSNRConditioning())
    prediction = denoiser(diffuse(x0, eps, step.t), step.t)
    return loss(NoisyBatch(x0, eps, step, weight), prediction, bound_of(chain)).loss


@pytest.mark.parametrize("make", [LearnedEnds, LearnedNet])
def test_the_ends_have_the_gradient_of_the_bound(make):
    torch.manual_seed(0)
    schedule = make()
    x0, eps = STD * normal(256, *SHAPE), normal(256, *SHAPE, seed=1)
    u = torch.linspace(0.0, 0.999, 256, dtype=torch.float64)
    loss_of(schedule, x0, eps, u, VLB()).mean().backward()
    for name in ("max", "min"):
        parameter = getattr(schedule, name)
        h = 1e-3
        with torch.no_grad():
            values = []
            for sign in (1.0, -1.0):
                parameter += sign * h
                values.append(loss_of(schedule, x0, eps, u, VLB()).mean().item())
                parameter -= sign * h
        assert parameter.grad.item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=2e-3)


class UnscaledVLB(VLB):
    """The bound without the factors of the interior's gradient."""

    def __call__(self, noisy, prediction, bound):
        return super().__call__(replace(noisy, step=replace(noisy.step, interior=())), prediction, bound)


@pytest.mark.parametrize("weight", [torch.ones(64).double(), torch.linspace(0.1, 3.0, 64).double()])
def test_the_interior_has_the_gradient_of_the_squared_weighted_loss(weight):
    torch.manual_seed(0)
    schedule = LearnedNet(features=16)
    x0, eps = STD * normal(64, *SHAPE), normal(64, *SHAPE, seed=1)
    u = torch.linspace(0.0, 0.99, 64, dtype=torch.float64)
    gradients = []
    for objective in (
        (weight * loss_of(schedule, x0, eps, u, VLB(), weight)).mean(),
        (weight * loss_of(schedule, x0, eps, u, UnscaledVLB())).square().mean(),
    ):
        schedule.zero_grad()
        objective.backward()
        gradients.append([w.grad.clone() for w in (schedule.w1, schedule.w2, schedule.b2, schedule.w3)])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)


def test_a_learned_net_keeps_its_ends_while_its_interior_is_trained():
    torch.manual_seed(0)
    schedule = LearnedNet(features=16)
    interior = [schedule.w1, schedule.w2, schedule.b2, schedule.w3]
    optimizer, ends = torch.optim.SGD(interior, lr=0.05), schedule.level(torch.tensor([0.0, 1.0]).double())
    before = schedule.level(torch.tensor([0.5]).double()).logsnr.item()
    x0, eps = STD * normal(64, *SHAPE), normal(64, *SHAPE, seed=1)
    u = torch.linspace(0.0, 0.99, 64, dtype=torch.float64)
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(schedule, x0, eps, u, VLB()).mean().backward()
        optimizer.step()
    after = schedule.level(torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(after.logsnr, ends.logsnr, rtol=0, atol=1e-12)
    assert abs(schedule.level(torch.tensor([0.5]).double()).logsnr.item() - before) > 1e-3


def test_a_loss_that_does_not_train_a_learned_schedule_is_refused(make_learned):
    with pytest.raises(ValueError, match=r"the loss Simple does not train the schedule Learned"):
        Simple().check_schedule(make_learned())
    VLB().check_schedule(make_learned())
    Simple().check_schedule(CosineSchedule())


def test_a_learned_schedule_with_timesteps_is_refused(make_learned):
    with pytest.raises(ValueError, match=r"schedule\.num_steps=1000: a learned schedule"):
        make_learned(num_steps=1000)


@pytest.mark.parametrize("kind", [LearnedEnds, LearnedNet])
@pytest.mark.parametrize(
    ("half_bin", "expected"), [(None, 13.3), (1 / 16, 2 * math.log(16)), (1e-6, 13.3)], ids=str
)
def test_learned_ends_start_at_half_a_bin_if_it_is_noisier_than_the_published_start(kind, half_bin, expected):
    schedule = kind(half_bin=half_bin)
    ends = schedule.logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([expected, -5.0], abs=1e-6)
