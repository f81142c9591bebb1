import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.samplers import DDIM, Ancestral
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ every sampler


def test_a_sample_is_a_function_of_its_noise(make_sampler):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3,), 0.5, FixedLarge())
    sampler, noise = make_sampler(steps=20), normal(21, 4, 3)

    def sample(xT):
        return sampler.sample(denoise, sampler.chain(schedule), xT, lambda i: noise[i])

    first = sample(noise[0])
    assert first.shape == (4, 3)
    assert first.isfinite().all()
    assert torch.equal(sample(noise[0]), first)
    assert not torch.equal(sample(noise[0] + 0.1), first)


@pytest.mark.parametrize("T", [1, 2, 7, 30])
def test_every_number_of_steps_ends_at_the_noisiest(make_sampler, T):
    schedule = CosineSchedule(T)
    for steps in range(1, T + 1):
        timesteps = make_sampler(steps=steps).chain(schedule).timesteps()
        assert len(timesteps) == steps
        assert timesteps[-1] == T
        assert ((timesteps.diff() - T / steps).abs() < 1 + 1e-9).all()
    assert torch.equal(make_sampler(steps=None).chain(schedule).timesteps(), torch.arange(1, T + 1))


def test_more_steps_than_the_schedule_has_are_refused(make_sampler):
    with pytest.raises(ValueError, match=r"sampler\.steps=51, but the schedule has only 50 steps"):
        make_sampler(steps=51).chain(CosineSchedule(50))
    with pytest.raises(ValueError, match=r"sampler\.steps=0: at least 1 step"):
        make_sampler(steps=0)


def test_a_clipped_sample_stays_in_range(make_sampler):
    schedule, denoise = CosineSchedule(50), gaussian_denoiser((3,), 3.0, FixedSmall())
    noise = normal(21, 40, 3)
    for clip, inside in ((None, False), ([-0.5, 0.5], True)):  # a list is what comes from yaml
        sampler = make_sampler(steps=20, clip=clip)
        x = sampler.sample(denoise, sampler.chain(schedule), noise[0], lambda i: noise[i])
        assert (x.abs().max() <= 0.5).item() == inside


def test_labels_reach_the_denoiser(make_sampler):
    seen, exact = [], gaussian_denoiser((3,), 0.5, FixedSmall())

    def denoise(xt, level, label):
        seen.append((level.t[0].item(), label))
        return exact(xt, level)

    label, noise = torch.tensor([4, 2]), normal(2, 3)
    sampler = make_sampler(steps=4)
    sampler.sample(denoise, sampler.chain(CosineSchedule(8)), noise, lambda i: noise, label)
    assert [t for t, _ in seen] == [8, 6, 4, 2]
    assert all(given is label for _, given in seen)


def test_knowing_the_data_is_sampling_it(make_sampler):
    """For data at a single point every sampler arrives there, whatever the noise."""
    point = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    denoise = GaussianMixtureDenoiser(point, torch.ones(1, dtype=torch.float64), 0.0, FixedLarge())
    sampler, noise = make_sampler(steps=5), normal(6, 4, 2)
    x = sampler.sample(denoise, sampler.chain(CosineSchedule(20)), noise[0], lambda i: noise[i])
    torch.testing.assert_close(x, point.expand(4, 2))


# ------------------------------------------------------------------ relations between samplers


@pytest.mark.parametrize("steps", [1, 2, 13, 100])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.5)])
def test_ddim_with_eta_1_is_ancestral_sampling_with_the_small_variance(steps, clip):
    schedule, denoise = CosineSchedule(100), gaussian_denoiser((3,), 0.7, FixedSmall())
    noise = normal(steps + 1, 8, 3)
    ancestral, ddim = (
        sampler.sample(denoise, sampler.chain(schedule), noise[0], lambda i: noise[i])
        for sampler in (Ancestral(steps, clip), DDIM(1.0, steps, clip))
    )
    torch.testing.assert_close(ddim, ancestral, rtol=1e-9, atol=1e-9)


def test_ddim_with_eta_0_uses_no_noise():
    schedule, denoise = CosineSchedule(100), gaussian_denoiser((3,), 0.7, FixedSmall())
    noise = normal(101, 8, 3)
    sampler = DDIM(0.0)
    with_noise, without = (
        sampler.sample(denoise, sampler.chain(schedule), noise[0], draw)
        for draw in (lambda i: noise[i], lambda i: torch.zeros_like(noise[0]))
    )
    assert torch.equal(with_noise, without)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_of_0_to_1_is_refused(eta):
    with pytest.raises(ValueError, match=r"sampler\.eta=.* must be inside \[0, 1\]"):
        DDIM(eta)


# ------------------------------------------------------------------ the law of the samples


def variance_of_samples(sampler, schedule, std, variance):
    """The exact variance of the samples: the sampler is linear, so it is that of its impulse responses.

    Example i sees a 1 in place of the noise of step i and 0 elsewhere, the last one in place of x_T.
    """
    chain = sampler.chain(schedule)
    K = chain.num_steps
    unit = torch.eye(K + 1, dtype=torch.float64)[:, :, None]
    response = sampler.sample(gaussian_denoiser((1,), std, variance), chain, unit[K], lambda i: unit[i - 1])
    return response.square().sum().item()


@pytest.mark.parametrize("make", [CosineSchedule, LinearSchedule])
@pytest.mark.parametrize("steps", [10, 1000])
def test_ancestral_sampling_of_standard_normal_data_keeps_the_variance(make, steps):
    """p(x_s | x_t) is exact then, so Var(x_1) = 1, and x_0 = E[x_0 | x_1] leaves out beta_1."""
    schedule, sampler = make(1000), Ancestral(steps, clip=None)
    alpha_bar_1 = sampler.chain(schedule).level(torch.tensor(1)).alpha_bar.item()
    actual = variance_of_samples(sampler, schedule, 1.0, FixedLarge())
    assert actual == pytest.approx(alpha_bar_1, rel=1e-10)


SAMPLERS = {
    "ancestral, large": (Ancestral, {}, FixedLarge()),
    "ancestral, small": (Ancestral, {}, FixedSmall()),
    "ddim, eta 0": (DDIM, {"eta": 0.0}, FixedSmall()),
    "ddim, eta 0.5": (DDIM, {"eta": 0.5}, FixedSmall()),
}


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


def test_a_mixture_is_recovered():
    """Weights, means and width of 4000 samples, within 4 standard errors."""
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.8], [0.5, -1.0]], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    std, n = 0.1, 4000
    denoise = GaussianMixtureDenoiser(means, weights, std, FixedLarge())
    g = torch.Generator().manual_seed(0)

    def noise(i):
        return torch.randn(n, 2, generator=g, dtype=torch.float64)

    sampler = Ancestral(clip=None)
    x = sampler.sample(denoise, sampler.chain(CosineSchedule(500, logsnr_max=10.0)), noise(0), noise)
    component = torch.cdist(x, means).argmin(1)
    share = component.bincount(minlength=3) / n
    assert ((share - weights).abs() < 4 * (weights * (1 - weights) / n).sqrt()).all()
    for k in range(3):
        own = x[component == k] - means[k]
        assert (own.mean(0).abs() < 4 * std / len(own) ** 0.5).all()
        # its own error of 1% beside the statistical one
        assert (own.std() / std - 1).abs() < 0.01 + 4 / (2 * own.numel()) ** 0.5


def test_the_last_step_adds_no_noise():
    schedule, denoise = CosineSchedule(10), gaussian_denoiser((3,), 0.7, FixedLarge())
    step = Chain(schedule).step(torch.tensor([1]))
    xt, noise = normal(2, 1, 3)
    prediction = denoise(xt, step.t)
    assert torch.equal(Ancestral().step(xt, prediction, step, noise), prediction.x0_hat)
