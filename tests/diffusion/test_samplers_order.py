"""Samplers of higher order: the published formulas, and the order of convergence."""

import math

import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, Heun
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule, LinearSchedule
from nelbo.diffusion.spacings import Even, Trailing, UniformLogSNR
from nelbo.diffusion.variances import FixedSmall

STD = 0.6


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture():
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.8], [0.5, -1.0]], dtype=torch.float64)
    return GaussianMixtureDenoiser(
        means, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), 0.4, FixedSmall()
    )


# ------------------------------------------------------------------ the order

STRIDES = (32, 16, 8, 4)
FINE = LinearLogSNRSchedule(1025, logsnr_max=6.0, logsnr_min=-6.0)


def uniform_chain(stride):
    """Levels at exactly equal distances in logsnr, the same ends for every stride that divides 1024."""
    return Chain(FINE, torch.arange(1, 1026, stride))


def slope(errors):
    """The order of convergence, by least squares in the logarithms."""
    x = torch.tensor([math.log(1024 / stride) for stride in STRIDES])
    y = torch.tensor(errors).log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


def marginal_variance(index):
    """Of x_t for N(0, STD^2) data, at level ``index`` of the fine chain."""
    level = Chain(FINE).level(torch.tensor(index))
    return level.alpha_bar * STD**2 + level.noise_scale.square()


FIRST, SECOND = (0.8, 1.2), (1.8, 2.3)
DETERMINISTIC = {
    "ddim": (DDIM(0.0, clip=None), FIRST),
    "heun": (Heun(clip=None), SECOND),
    "dpm-solver++": (DPMSolverPP(max_final_ratio=None, clip=None), SECOND),
    "dpm-solver++, first order final": (DPMSolverPP(max_final_ratio=0.0, clip=None), SECOND),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_for_a_gaussian(name):
    """The ODE's solution is x_s = x_t std(x_s) / std(x_t), and x_0 = E[x_0 | x_1]."""
    sampler, (low, high) = DETERMINISTIC[name]
    denoise, xT = gaussian_denoiser((3,), STD, FixedSmall()), normal(4, 3)
    x1 = xT * (marginal_variance(1) / marginal_variance(1025)).sqrt()
    exact = denoise(x1, Chain(FINE).level(torch.ones(4, dtype=torch.int64))).x0_hat
    errors = [
        (sampler.sample(denoise, uniform_chain(stride), xT, lambda i: xT) - exact).abs().max().item()
        for stride in STRIDES
    ]
    assert low < slope(errors) < high


@pytest.mark.slow
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_for_a_mixture(name):
    """Against Heun's method with 1024 steps."""
    sampler, (low, high) = DETERMINISTIC[name]
    denoise, xT = mixture(), normal(200, 2)
    fine = Heun(clip=None).sample(denoise, uniform_chain(1), xT, lambda i: xT)
    errors = [
        (sampler.sample(denoise, uniform_chain(stride), xT, lambda i: xT) - fine)
        .square()
        .mean()
        .sqrt()
        .item()
        for stride in STRIDES
    ]
    assert low < slope(errors) < high


STOCHASTIC = {
    "ancestral": (Ancestral(clip=None), FIRST),
    "ddim, eta 1": (DDIM(1.0, clip=None), FIRST),
    "sde-dpm-solver++": (DPMSolverPP(stochastic=True, max_final_ratio=None, clip=None), SECOND),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_order_of_the_variance_with_noise(name):
    """The samples' exact variance, from their responses to single units of noise, begun at that of x_T."""
    sampler, (low, high) = STOCHASTIC[name]
    denoise = gaussian_denoiser((1,), STD, FixedSmall())
    cleanest = Chain(FINE).level(torch.ones(1, dtype=torch.int64))
    gain = denoise(torch.ones(1, 1, dtype=torch.float64), cleanest).x0_hat.item()
    exact, begin = gain**2 * marginal_variance(1), marginal_variance(1025).sqrt()
    errors = []
    for stride in STRIDES:
        chain = uniform_chain(stride)
        K = chain.num_steps
        units = torch.eye(K + 1, dtype=torch.float64)[:, :, None]
        response = sampler.sample(denoise, chain, begin * units[K], lambda i, units=units: units[i - 1])
        errors.append(abs(response.square().sum() - exact).item())
    assert low < slope(errors) < high


# ------------------------------------------------------------------ the formulas, as published


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_heun_is_algorithm_1_of_edm(steps):
    """Karras et al. 2022, algorithm 1 with s(t) = 1 and sigma(t) = t, on y = x / signal."""
    chain, denoise = Trailing().chain(LinearSchedule(1000), steps), mixture()
    levels = [chain.level(torch.full((5,), i)) for i in range(1, steps + 1)]
    sigmas = [0.0, *((-0.5 * level.logsnr[0]).exp().item() for level in levels)]

    def D(y, i):  # noqa: N802 - its name there
        return denoise(levels[i - 1].signal_scale[:, None] * y, levels[i - 1]).x0_hat

    xT = normal(5, 2)
    y = xT / levels[-1].signal_scale[:, None]
    for i in range(steps, 0, -1):
        d = (y - D(y, i)) / sigmas[i]
        euler = y + (sigmas[i - 1] - sigmas[i]) * d
        if i > 1:
            d_next = (euler - D(euler, i - 1)) / sigmas[i - 1]
            y = y + (sigmas[i - 1] - sigmas[i]) * (d + d_next) / 2
        else:
            y = euler
    x = Heun(sigma_max=None, clip=None).sample(denoise, chain, xT, lambda i: xT)
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def published_dpm_solver_pp(chain, denoise, x, noise, max_final_ratio, stochastic):
    """Lu et al. 2022, algorithm 2, and its stochastic version, in their notation; then x0_hat at the end."""
    K, history = chain.num_steps, []
    for i in range(K, 0, -1):
        at = chain.level(torch.full((len(x),), i))
        sigma, lam = at.noise_scale[0], 0.5 * at.logsnr[0]
        x_hat = denoise(x, at).x0_hat
        if i == 1:
            return x_hat
        to = chain.level(torch.tensor(i - 1))
        alpha, sigma_to, h = to.signal_scale, to.noise_scale, 0.5 * to.logsnr - lam
        D = x_hat
        if history and not (max_final_ratio == 0.0 and i == 2):
            before, lam_before = history[-1]
            r = (lam - lam_before) / h
            D = (1 + 1 / (2 * r)) * x_hat - 1 / (2 * r) * before
        history.append((x_hat, lam))
        if stochastic:
            x = (
                sigma_to / sigma * (-h).exp() * x
                + alpha * (1 - (-2 * h).exp()) * D
                + sigma_to * (1 - (-2 * h).exp()).sqrt() * noise(i)
            )
        else:
            x = sigma_to / sigma * x - alpha * ((-h).exp() - 1) * D
    raise AssertionError


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("max_final_ratio", [None, 0.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_dpm_solver_pp_is_algorithm_2_of_its_paper(steps, max_final_ratio, stochastic):
    noise = normal(steps + 1, 5, 2)
    for spacing in (Trailing(), Even()):
        chain = spacing.chain(CosineSchedule(1000), steps)
        options = {"max_final_ratio": max_final_ratio, "stochastic": stochastic}
        expected = published_dpm_solver_pp(chain, mixture(), noise[0], lambda i: noise[i], **options)
        x = DPMSolverPP(**options, clip=None).sample(mixture(), chain, noise[0], lambda i: noise[i])
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


def test_two_steps_of_first_order_are_ddim():
    """Without a previous level, and for the step to data, both are DDIM's steps."""
    chain, noise = Trailing().chain(CosineSchedule(1000), 2), normal(3, 5, 2)
    for stochastic in (False, True):
        dpm, ddim = (
            sampler.sample(mixture(), chain, noise[0], lambda i: noise[i])
            for sampler in (DPMSolverPP(stochastic), DDIM(float(stochastic)))
        )
        torch.testing.assert_close(dpm, ddim, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------ what a sampler costs, and where it starts


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_heun_evaluates_twice_except_for_the_step_to_data(steps):
    chain = Trailing().chain(LinearSchedule(1000), steps)
    assert Heun(sigma_max=None).evaluations(chain) == 2 * steps - 1
    assert DPMSolverPP().evaluations(chain) == steps


def test_heun_evaluates_once_above_sigma_max():
    chain = Trailing().chain(CosineSchedule(1000), 50)
    sigma = (-0.5 * chain.level(torch.arange(1, 51)).logsnr).exp()
    assert sigma[-1] > 10_000
    assert sigma[-2] < 80
    assert Heun(sigma_max=80.0).evaluations(chain) == 2 * 50 - 1 - 1
    assert Heun(sigma_max=1e-9).evaluations(chain) == 50


def test_heun_with_all_levels_above_sigma_max_is_ddim():
    chain, xT = Trailing().chain(CosineSchedule(1000), 10), normal(5, 2)
    heun, ddim = (
        sampler.sample(mixture(), chain, xT, lambda i: xT) for sampler in (Heun(sigma_max=1e-9), DDIM())
    )
    torch.testing.assert_close(heun, ddim, rtol=1e-12, atol=1e-12)


def test_zero_terminal_snr_needs_sigma_max():
    """The cosine schedule's last step goes from sigma = 20000 to 32; the variance shows what comes of it."""
    chain, one = Trailing().chain(CosineSchedule(1000), 50), torch.ones(1, 1, dtype=torch.float64)
    denoise = gaussian_denoiser((1,), STD, FixedSmall())

    def error(sigma_max):
        sampler = Heun(sigma_max, clip=None)
        return abs(sampler.sample(denoise, chain, one, lambda i: one).item() ** 2 / STD**2 - 1)

    assert error(80.0) < 0.01
    assert error(None) > 0.1


@pytest.mark.parametrize("sigma_max", [0.0, -1.0, math.nan])
def test_sigma_max_below_0_raises(sigma_max):
    with pytest.raises(ValueError, match=r"sampler\.sigma_max=.* must be above 0, or null"):
        Heun(sigma_max)


# ------------------------------------------------------------------ the final step of DPM-Solver++


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' own numpy
@pytest.mark.parametrize(
    "final", [{"lower_order_final": True}, {"lower_order_final": False}, {"euler_at_final": True}]
)
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_dpm_solver_pp_without_a_final_ratio_is_diffusers_scheduler(steps, final):
    """Its step to data is of first order with any of its options, and no other step after the first."""
    diffusers = pytest.importorskip("diffusers")
    schedule, denoise, xT = LinearSchedule(1000), mixture(), normal(20, 2)
    alpha_bar = Chain(schedule).level(torch.arange(1, 1001)).alpha_bar
    betas = 1 - alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
    scheduler = diffusers.DPMSolverMultistepScheduler(
        trained_betas=betas.tolist(), timestep_spacing="trailing", prediction_type="sample", **final
    )
    scheduler.set_timesteps(steps)
    x = xT
    for t in scheduler.timesteps:
        x0_hat = denoise(x, Chain(schedule).level((t + 1).expand(len(x)))).x0_hat
        x = scheduler.step(x0_hat, t, x).prev_sample.double()
    chain = Trailing().chain(schedule, steps)
    ours = DPMSolverPP(max_final_ratio=None).sample(denoise, chain, xT, lambda i: xT)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-4)
    other = DPMSolverPP(max_final_ratio=0.0).sample(denoise, chain, xT, lambda i: xT)
    assert (other - x).abs().max() > 1e-2  # what lower_order_final was here before


@pytest.mark.parametrize("schedule", [LinearSchedule(1000), CosineSchedule(1000, half_bin=1 / 255)])
@pytest.mark.parametrize(("spacing", "as_if"), [(Even(), 0.0), (Trailing(), None)])
@pytest.mark.parametrize("steps", [10, 20])
def test_the_default_final_step_is_the_better_one_on_each_spacing(schedule, spacing, as_if, steps):
    """Against Heun's method with many steps."""
    denoise, xT = mixture(), normal(50, 2)
    exact = Heun().sample(denoise, UniformLogSNR().chain(schedule, 150), xT, lambda i: xT)

    def error(**options) -> float:
        x = DPMSolverPP(**options).sample(denoise, spacing.chain(schedule, steps), xT, lambda i: xT)
        return (x - exact).square().mean().sqrt().item()

    worse = None if as_if == 0.0 else 0.0
    assert error() == error(max_final_ratio=as_if)
    assert error() < error(max_final_ratio=worse)
