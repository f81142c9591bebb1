"""Properties of every sampler in conf/sampler, and the distribution of the samples."""

import functools
from types import SimpleNamespace

import pytest
import torch

from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser, posterior_variance
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, Heun
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule, RectifiedFlowSchedule
from nelbo.diffusion.spacings import Trailing
from nelbo.diffusion.variances import FixedLarge, FixedSmall


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain_of(sampler, schedule):
    return Trailing().chain(schedule, sampler.steps)


# ------------------------------------------------------------------ every sampler


def test_a_sample_is_a_function_of_its_noise(make_sampler):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3,), 0.5, FixedLarge())
    sampler, noise = make_sampler(steps=20), normal(21, 4, 3)

    def sample(xT):
        return sampler.sample(denoise, chain_of(sampler, schedule), xT, lambda i: noise[i])

    first = sample(noise[0])
    assert first.shape == (4, 3)
    assert first.isfinite().all()
    assert torch.equal(sample(noise[0]), first)
    assert not torch.equal(sample(noise[0] + 0.1), first)


def test_noise_is_drawn_only_by_samplers_that_use_it(make_sampler):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3,), 0.5, FixedLarge())
    sampler, asked = make_sampler(steps=8), []

    def sample(noise):
        def draw(i):
            asked.append(i)
            return noise[i]

        return sampler.sample(denoise, chain_of(sampler, schedule), noise[0], draw)

    first = normal(9, 4, 3)
    other = torch.cat([first[:1], normal(8, 4, 3, seed=1)])  # the same start, other noise on the way
    assert torch.equal(sample(first), sample(other)) != sampler.is_random
    assert asked == (2 * list(range(8, 0, -1)) if sampler.is_random else [])


def test_steps_below_1_raise(make_sampler):
    with pytest.raises(ValueError, match=r"sampler\.steps=0: at least 1 step"):
        make_sampler(steps=0)


def test_a_clipped_sample_stays_in_range(make_sampler):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3,), 3.0, FixedSmall())
    noise = normal(21, 40, 3)
    for clip, inside in ((None, False), ([-0.5, 0.5], True)):  # a list is what comes from yaml
        sampler = make_sampler(steps=20, clip=clip)
        x = sampler.sample(denoise, chain_of(sampler, schedule), noise[0], lambda i: noise[i])
        assert (x.abs().max() <= 0.5).item() == inside


def test_the_condition_reaches_the_denoiser(make_sampler):
    seen, exact = [], gaussian_denoiser((3,), 0.5, FixedSmall())

    def denoise(xt, level, cond):
        seen.append((level.t[0].item(), cond))
        return exact(xt, level)

    cond, noise = torch.tensor([4, 2]), normal(2, 3)
    sampler = make_sampler(steps=4)
    chain = chain_of(sampler, CosineSchedule(8))
    sampler.sample(denoise, chain, noise, lambda i: noise, cond)
    assert len(seen) == sampler.evaluations(chain)
    assert list(dict.fromkeys(t for t, _ in seen)) == [8, 6, 4, 2]
    assert all(given is cond for _, given in seen)


def test_a_denoiser_that_returns_the_data_samples_the_data(make_sampler):
    """For data at a single point every sample is that point."""
    point = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    denoise = GaussianMixtureDenoiser(point, torch.ones(1, dtype=torch.float64), 0.0, FixedLarge())
    sampler, noise = make_sampler(steps=5), normal(6, 4, 2)
    x = sampler.sample(denoise, chain_of(sampler, CosineSchedule(20)), noise[0], lambda i: noise[i])
    torch.testing.assert_close(x, point.expand(4, 2))


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_sample_is_the_last_x0_hat(make_sampler, steps):
    """No noise is added at the step to data, and no method of higher order corrects it."""
    predictions, exact = [], gaussian_denoiser((3,), 0.7, FixedLarge())

    def denoise(xt, level, cond):
        predictions.append(exact(xt, level))
        return predictions[-1]

    sampler, noise = make_sampler(steps=steps, clip=[-0.4, 0.4]), normal(steps + 1, 2, 3)
    x = sampler.sample(denoise, chain_of(sampler, CosineSchedule(10)), noise[0], lambda i: noise[i])
    torch.testing.assert_close(x, predictions[-1].x0_hat.clamp(-0.4, 0.4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dynamic_clip", [None, 0.9])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(make_sampler, dynamic_clip):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3, 4, 4), 3.0, FixedSmall())
    sampler = make_sampler(steps=10, clip=(-1.0, 1.0), dynamic_clip=dynamic_clip)
    noise = normal(11, 5, 3, 4, 4)

    def sample(rows):
        return sampler.sample(denoise, chain_of(sampler, schedule), noise[0, rows], lambda i: noise[i, rows])

    parts = torch.cat([sample(slice(0, 1)), sample(slice(1, 3)), sample(slice(3, 5))])
    torch.testing.assert_close(parts, sample(slice(0, 5)), rtol=1e-12, atol=1e-12)


def test_interleaved_calls_of_one_sampler_do_not_interact(make_sampler):
    """A call that is interrupted at every evaluation by another call returns the same sample."""
    exact, sampler = gaussian_denoiser((3,), 0.5, FixedSmall()), make_sampler(steps=6)
    noise, other = normal(7, 4, 3), normal(7, 2, 3, seed=1)
    chain, other_chain = chain_of(sampler, CosineSchedule(50)), chain_of(sampler, LinearSchedule(100))

    def interrupted(xt, level, cond):
        sampler.sample(exact, other_chain, other[0], lambda i: other[i])
        return exact(xt, level)

    alone = sampler.sample(exact, chain, noise[0], lambda i: noise[i])
    assert torch.equal(sampler.sample(interrupted, chain, noise[0], lambda i: noise[i]), alone)
    assert torch.equal(sampler.sample(exact, chain, noise[0], lambda i: noise[i]), alone)


@pytest.mark.parametrize("steps", [1, 2, 13, 50])
def test_evaluations_predicts_the_number_of_network_calls(make_sampler, steps):
    exact, sampler = gaussian_denoiser((3,), 0.5, FixedSmall()), make_sampler(steps=steps)
    for schedule in (CosineSchedule(50), LinearSchedule(200)):
        calls, chain, noise = [], chain_of(sampler, schedule), normal(2, 3)

        def denoise(xt, level, cond, calls=calls):
            calls.append(level.t.tolist())
            return exact(xt, level)

        sampler.sample(denoise, chain, noise, lambda i, noise=noise: noise)
        assert len(calls) == sampler.evaluations(chain)
        assert all(t in chain.t() for ts in calls for t in ts)


@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_every_sampler_works_with_every_spacing(make_sampler, make_spacing, random_costs, steps):
    chain, noise = make_spacing(random_costs(12)).chain(CosineSchedule(12), steps), normal(steps + 1, 4, 3)
    denoise = gaussian_denoiser((3,), 0.5, FixedSmall())
    x = make_sampler(steps=steps, data_range=(-1.0, 1.0)).sample(denoise, chain, noise[0], lambda i: noise[i])
    assert x.isfinite().all()
    assert x.abs().max() <= 1.0 + 1e-12


def test_the_parameterization_makes_no_difference(make_sampler, make_linear_parameterization):
    schedule, exact = CosineSchedule(60), gaussian_denoiser((3,), 0.5, FixedSmall())
    parameterization = make_linear_parameterization()

    def network(xt, t, cond):
        level = schedule.level(t.long())
        skip, out = (c[:, None] for c in parameterization.coefficients(level))
        c_in = parameterization.c_in(level)
        xt = xt if c_in is None else xt / c_in[:, None]
        return (exact(xt, level).x0_hat - skip * xt) / out

    sampler, noise = make_sampler(steps=15), normal(16, 4, 3)
    x, expected = (
        sampler.sample(denoise, chain_of(sampler, schedule), noise[0], lambda i: noise[i])
        for denoise in (Denoiser(network, parameterization, FixedSmall()), exact)
    )
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)


def test_float32_is_close_to_float64(make_sampler):
    """The noisiest level of the cosine schedule has noise / signal = 2e4."""
    schedule, denoise = CosineSchedule(1000, logsnr_max=10.0), gaussian_denoiser((3,), 0.3, FixedSmall())
    sampler, noise = make_sampler(steps=50), normal(51, 50, 3)
    x, expected = (
        sampler.sample(denoise, chain_of(sampler, schedule), z[0], lambda i, z=z: z[i])
        for z in (noise.float(), noise)
    )
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------ relations between samplers


@pytest.mark.parametrize("steps", [1, 2, 13, 100])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.5)])
def test_ddim_with_eta_1_is_ancestral_sampling_with_the_small_variance(steps, clip):
    schedule, denoise = CosineSchedule(100), gaussian_denoiser((3,), 0.7, FixedSmall())
    noise = normal(steps + 1, 8, 3)
    ancestral, ddim = (
        sampler.sample(denoise, chain_of(sampler, schedule), noise[0], lambda i: noise[i])
        for sampler in (Ancestral(steps, clip), DDIM(1.0, steps, clip))
    )
    torch.testing.assert_close(ddim, ancestral, rtol=1e-9, atol=1e-9)


def test_ddim_with_eta_0_uses_no_noise():
    schedule, denoise = CosineSchedule(100), gaussian_denoiser((3,), 0.7, FixedSmall())
    noise = normal(101, 8, 3)
    sampler = DDIM(0.0)
    with_noise, without = (
        sampler.sample(denoise, chain_of(sampler, schedule), noise[0], draw)
        for draw in (lambda i: noise[i], lambda i: torch.zeros_like(noise[0]))
    )
    assert torch.equal(with_noise, without)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_0_to_1_raises(eta):
    with pytest.raises(ValueError, match=r"sampler\.eta=.* must be inside \[0, 1\]"):
        DDIM(eta)


# ------------------------------------------------------------------ the law of the samples


def variance_of_samples(sampler, schedule, std, variance):
    """The exact variance of the samples: the sampler is linear, so it is that of its impulse responses.

    Example i sees a 1 in place of the noise of step i and 0 elsewhere, the last one in place of x_T.
    """
    chain = chain_of(sampler, schedule)
    K = chain.num_steps
    unit = torch.eye(K + 1, dtype=torch.float64)[:, :, None]
    response = sampler.sample(gaussian_denoiser((1,), std, variance), chain, unit[K], lambda i: unit[i - 1])
    return response.square().sum().item()


@pytest.mark.parametrize("make", [CosineSchedule, LinearSchedule])
@pytest.mark.parametrize("steps", [10, 1000])
def test_ancestral_sampling_of_standard_normal_data_keeps_the_variance(make, steps):
    """p(x_s | x_t) is exact then, so Var(x_1) = 1, and x_0 = E[x_0 | x_1] leaves out beta_1."""
    schedule, sampler = make(1000), Ancestral(steps, clip=None)
    alpha_bar_1 = chain_of(sampler, schedule).level(torch.tensor(1)).alpha_bar.item()
    actual = variance_of_samples(sampler, schedule, 1.0, FixedLarge())
    assert actual == pytest.approx(alpha_bar_1, rel=1e-10)


SAMPLERS = {
    "ancestral, large": (Ancestral, {}, FixedLarge()),
    "ancestral, small": (Ancestral, {}, FixedSmall()),
    "ddim, eta 0": (DDIM, {"eta": 0.0}, FixedSmall()),
    "ddim, eta 0.5": (DDIM, {"eta": 0.5}, FixedSmall()),
    "dpm-solver++, sde": (DPMSolverPP, {"stochastic": True}, FixedSmall()),
}


@pytest.mark.slow
@pytest.mark.parametrize("std", [0.25, 2.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_variance_of_samples_approaches_that_of_the_data(name, std):
    """The error of T steps is O(1 / T): about 4 times smaller with 4 times as many."""
    cls, arguments, variance = SAMPLERS[name]
    errors = []
    for T in (100, 400):
        schedule = CosineSchedule(T, logsnr_max=9.0, logsnr_min=-12.0)
        actual = variance_of_samples(cls(clip=None, **arguments), schedule, std, variance)
        errors.append(abs(actual / std**2 - 1))
    assert errors[1] < 0.05
    assert errors[1] < 0.35 * errors[0]


@functools.cache
def correlated_gaussian():
    """The exact denoiser of N(mean, covariance) in the plane."""
    mean = torch.tensor([0.4, -0.3], dtype=torch.float64)
    covariance = torch.tensor([[0.3, 0.2], [0.2, 0.25]], dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance)

    def denoise(xt, level, cond=None):
        signal, noise = level.signal_scale[:, None], level.noise_scale[:, None]
        gain = signal * values / (signal.square() * values + noise.square())
        x0_hat = mean + ((xt - signal * mean) @ axes * gain) @ axes.T
        return Prediction(x0_hat, (xt - signal * x0_hat) / noise, FixedSmall())

    return SimpleNamespace(mean=mean, covariance=covariance, denoise=denoise)


def moments_of_samples(sampler, denoise, chain):
    """The exact mean (2,) and covariance (2, 2) of samples in the plane, where x0_hat is affine in x_t.

    The last example sees no noise and ends in the mean; each other one sees a single 1 among its noise.
    """
    dims = 2 * (chain.num_steps + 1)
    units = torch.cat([torch.eye(dims, dtype=torch.float64), torch.zeros(1, dims, dtype=torch.float64)])
    units = units.reshape(dims + 1, chain.num_steps + 1, 2)
    x = sampler.sample(denoise, chain, units[:, -1], lambda i: units[:, i - 1])
    response = x[:-1] - x[-1]
    return x[-1], response.T @ response


def test_a_correlated_gaussian_is_recovered(make_sampler):
    """Within 7% with the configured steps, within a third of that with four times as many."""
    target, schedule = correlated_gaussian(), CosineSchedule(1000, logsnr_max=10.0)
    sampler = make_sampler(clip=None)
    for times, allowed in ((1, 0.07), (4, 0.025)):
        chain = Trailing().chain(schedule, times * (sampler.steps or 250))
        mean, covariance = moments_of_samples(sampler, target.denoise, chain)
        torch.testing.assert_close(mean, target.mean, rtol=0, atol=1e-3)
        assert (covariance - target.covariance).abs().max() < allowed * target.covariance.max()


def test_a_mixture_is_recovered(make_sampler):
    """Weights, means and widths of 4000 samples, within 4 standard errors and the sampler's own.

    What ends in x0_hat at the chain's cleanest level leaves out Var(x_0 | x_1), half of it for 18 steps.
    """
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.8], [0.5, -1.0]], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    std, n = 0.1, 4000
    denoise = GaussianMixtureDenoiser(means, weights, std, FixedSmall())
    g = torch.Generator().manual_seed(0)

    def noise(i):
        return torch.randn(n, 2, generator=g, dtype=torch.float64)

    sampler = make_sampler(clip=None)
    chain = chain_of(sampler, CosineSchedule(1000, logsnr_max=10.0))
    x = sampler.sample(denoise, chain, noise(0), noise)
    component = torch.cdist(x, means).argmin(1)
    share = component.bincount(minlength=3) / n
    assert ((share - weights).abs() < 4 * (weights * (1 - weights) / n).sqrt()).all()
    width = std**2 - posterior_variance(chain.level(torch.tensor(1)), std).item()
    for k in range(3):
        own = x[component == k] - means[k]
        assert (own.mean(0).abs() < 0.002 + 4 * std / len(own) ** 0.5).all()
        assert abs(own.square().mean() / width - 1) < 0.05 + 4 * (2 / own.numel()) ** 0.5


def test_heun_takes_a_step_of_euler_from_a_level_without_signal():
    schedule = RectifiedFlowSchedule(20)
    assert schedule.table()[-1] == -torch.inf
    exact, noise = gaussian_denoiser((3,), 0.5, FixedSmall()), normal(1000, 3)

    def denoise(xt, level, cond=None):
        """The exact x0_hat; without signal it is the mean, and the noise is x_t."""
        found = exact(xt, level)
        is_noise = level.logsnr[0].isneginf()
        return Prediction(torch.zeros_like(xt), xt, FixedSmall()) if is_noise else found

    unlimited, limited = (Heun(sigma_max, steps=20) for sigma_max in (None, 80.0))
    chain = chain_of(unlimited, schedule)
    samples = unlimited.sample(denoise, chain, noise, lambda i: noise)
    assert torch.equal(samples, limited.sample(denoise, chain, noise, lambda i: noise))
    assert samples.std().item() == pytest.approx(0.5, rel=0.1)
    assert unlimited.evaluations(chain) == 2 * 20 - 2
