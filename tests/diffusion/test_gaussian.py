import mpmath
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from nelbo.diffusion.gaussian import DiagonalGaussian, kl


def gaussian(seed):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = 2.0 * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(mean, log_var), Normal(mean, (0.5 * log_var).exp())


def test_log_prob():
    ours, reference = gaussian(0)
    x = torch.linspace(-5, 5, 60, dtype=torch.float64).reshape(5, 3, 4)
    torch.testing.assert_close(ours.log_prob(x), reference.log_prob(x), rtol=1e-13, atol=1e-13)


def test_kl():
    (q, q_reference), (p, p_reference) = gaussian(0), gaussian(1)
    torch.testing.assert_close(kl(q, p), kl_divergence(q_reference, p_reference), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("exponent", range(-12, 1))
def test_kl_of_nearly_equal_variances_is_accurate(exponent):
    """r + exp(-r) - 1 in place of r + expm1(-r) would have none left at r = 1e-8."""
    r = 10.0**exponent
    q = DiagonalGaussian(torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    p = DiagonalGaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([r, -r], dtype=torch.float64))
    exact = [(x + mpmath.expm1(-x)) / 2 for x in (mpmath.mpf(r), -mpmath.mpf(r))]
    expected = torch.tensor([float(x) for x in exact], dtype=torch.float64)
    # half an ulp of r, relative to r^2 / 2
    torch.testing.assert_close(kl(q, p), expected, rtol=1e-15 + 3e-16 / r, atol=0)


def test_kl_keeps_the_dtype_of_the_means():
    """A level's log variance is float64; it must not turn images into float64."""
    log_var = torch.zeros(2, 1, dtype=torch.float64)
    q = DiagonalGaussian(torch.zeros(2, 3), log_var)
    assert kl(q, q).dtype == torch.float32
    assert q.log_prob(torch.zeros(2, 3)).dtype == torch.float32
    assert q.sample(torch.zeros(2, 3)).dtype == torch.float32


def test_a_sample_is_mean_plus_deviation_times_noise():
    ours, reference = gaussian(0)
    noise = torch.linspace(-3, 3, 60, dtype=torch.float64).reshape(5, 3, 4)
    torch.testing.assert_close(ours.sample(noise), reference.mean + reference.stddev * noise)
