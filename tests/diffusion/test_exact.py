"""The exact denoisers against brute force: integration over x_0, and Tweedie's formula by autograd."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser, posterior_variance
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.variances import FixedSmall

LOGSNR = torch.tensor([-6.0, -2.0, 0.0, 1.0, 4.0], dtype=torch.float64)
LEVEL = NoiseLevel(torch.arange(1, 6), LOGSNR)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 2.0])
def test_posterior_of_a_gaussian_by_integration(std):
    x0 = torch.linspace(-20 * std, 20 * std, 40_001, dtype=torch.float64)
    for i in range(5):
        level = NoiseLevel(LEVEL.t[i : i + 1], LOGSNR[i : i + 1])
        xt = torch.tensor([[0.7]], dtype=torch.float64)
        log_p = Normal(torch.zeros_like(x0), std).log_prob(x0)
        p = (log_p + Normal(level.signal_scale * x0, level.noise_scale).log_prob(xt[0])).softmax(0)
        mean = (p * x0).sum()
        prediction = gaussian_denoiser((1,), std, FixedSmall())(xt, level)
        torch.testing.assert_close(prediction.x0_hat[0, 0], mean, rtol=1e-8, atol=1e-10)
        variance = (p * (x0 - mean).square()).sum()
        torch.testing.assert_close(posterior_variance(level, std)[0], variance, rtol=1e-8, atol=0)


def mixture(std):
    means = torch.tensor([[-1.0, 0.5], [0.3, 0.3], [1.2, -0.7]], dtype=torch.float64)
    return GaussianMixtureDenoiser(means, WEIGHTS, std, FixedSmall())


@pytest.mark.parametrize("std", [0.05, 0.3, 1.0])
def test_posterior_of_a_mixture_by_tweedie(std):
    """signal E[x_0 | x_t] = x_t + noise^2 grad log q(x_t)."""
    denoiser = mixture(std)
    xt = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    for i in range(5):
        signal, noise = LEVEL.signal_scale[i], LEVEL.noise_scale[i]
        width = (signal**2 * std**2 + noise**2).sqrt().expand(3, 2)
        components = Independent(Normal(signal * denoiser.means, width), 1)
        log_q = MixtureSameFamily(Categorical(WEIGHTS), components).log_prob(xt)
        (score,) = torch.autograd.grad(log_q.sum(), xt)
        expected = (xt + noise**2 * score) / signal
        level = NoiseLevel(LEVEL.t[i].expand(5), LOGSNR[i].expand(5))
        torch.testing.assert_close(denoiser(xt, level).x0_hat, expected, rtol=1e-9, atol=1e-9)


def test_x0_hat_and_eps_hat_are_consistent_with_x_t():
    xt = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prediction = mixture(0.3)(xt, LEVEL)
    torch.testing.assert_close(diffuse(prediction.x0_hat, prediction.eps_hat, LEVEL), xt)


def test_images_keep_their_dtype():
    xt = torch.randn(5, 1, 2, 2)
    assert gaussian_denoiser((1, 2, 2), 0.5, FixedSmall())(xt, LEVEL).x0_hat.dtype == torch.float32
