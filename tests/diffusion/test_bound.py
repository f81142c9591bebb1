"""The bound and its terms against closed forms, and against a direct Monte Carlo estimate.

For N(0, s^2) data and the exact denoiser, E|x_0 - x0_hat|^2 is the posterior variance Var(x_0 | x_t)
whatever x_t is. A prediction that misses x_0 by the root of it has the expected term for its term.
"""

import itertools
import math
from dataclasses import replace

import hypothesis.strategies as st
import mpmath
import pytest
import torch
from hypothesis import assume, given, settings
from torch.distributions import Normal

from nelbo.diffusion.bound import BoundTerms, VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder, Softmax
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.level import sum_per_example
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import (
    CosineSchedule,
    LinearLogSNRSchedule,
    LinearSchedule,
    RectifiedFlowSchedule,
    SigmoidSchedule,
)
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange

SCHEDULES = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "sigmoid": SigmoidSchedule,
    "linear_logsnr": LinearLogSNRSchedule,
}


def expected_terms(chain, variance, std):
    """L_0, L_t (K-1,) and L_T of N(0, std^2) data under the exact denoiser, nats per dimension."""
    bound = VariationalBound(chain, GaussianDecoder())
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    x0 = torch.full((chain.num_steps, 1), std, dtype=torch.float64)
    gap = posterior_variance(step.t, std).sqrt()[:, None]
    terms = bound.term(step, x0, Prediction(x0 - gap, torch.zeros_like(x0), variance))
    return BoundTerms(bound.prior(x0[:1]), terms[None, 1:], terms[:1])


def entropy(std):
    return 0.5 * math.log(2 * math.pi * math.e * std**2)


def gap_to_entropy(chain, variance, std):
    return expected_terms(chain, variance, std).total.item() - entropy(std)


# ------------------------------------------------------------------ bound = entropy


@pytest.mark.parametrize("T", [25, 100, 1000, 4000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_of_standard_normal_data_is_their_entropy(name, T):
    chain = Chain(SCHEDULES[name](T, logsnr_max="paper"))
    assert abs(gap_to_entropy(chain, FixedLarge(), 1.0)) < 1e-9


@settings(max_examples=50)
@given(
    T=st.integers(21, 200),
    high=st.floats(-1.0, 9.0),
    width=st.floats(0.5, 3.0),
    subset=st.sets(st.integers(1, 200), min_size=1),
)
@pytest.mark.parametrize("name", SCHEDULES)
def test_of_standard_normal_data_is_their_entropy_for_any_chain(name, T, high, width, subset):
    schedule = SCHEDULES[name](T, logsnr_max=high, logsnr_min=high - width)
    timesteps = sorted(t for t in subset if t <= T)
    assume(timesteps)
    assert abs(gap_to_entropy(Chain(schedule, torch.tensor(timesteps)), FixedLarge(), 1.0)) < 1e-9


@pytest.mark.parametrize("std", [1.0, 0.5])
@pytest.mark.parametrize("variance", [FixedLarge("beta_tilde"), FixedSmall(), FixedSmall("beta_tilde")])
def test_is_a_bound_under_other_variances(variance, std):
    chain = Chain(CosineSchedule(100))
    assert gap_to_entropy(chain, variance, std) > 0.01


@pytest.mark.parametrize(
    ("variance", "expected"), [(FixedLarge("beta"), 0.00061), (FixedSmall("beta_tilde"), 0.52999)]
)
def test_gap_of_narrow_data(variance, expected):
    """s^2 = 1/4 under the published cosine schedule with T = 1000."""
    chain = Chain(CosineSchedule(1000, logsnr_max="paper"))
    assert gap_to_entropy(chain, variance, 0.5) == pytest.approx(expected, abs=5e-6)


def test_gap_of_narrow_data_vanishes_with_more_steps():
    """Truncated alike, so that only the number of steps differs."""
    gaps = [
        gap_to_entropy(Chain(LinearLogSNRSchedule(T, logsnr_max=12.0, logsnr_min=-12.0)), FixedLarge(), 0.5)
        for T in (250, 500, 1000, 2000)
    ]
    ratios = [a / b for a, b in itertools.pairwise(gaps)]
    assert ratios == pytest.approx([2.0, 2.0, 2.0], rel=0.05)


# ------------------------------------------------------------------ term by term


@pytest.mark.parametrize("s2", ["1", "0.25", "0.01"])
@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=["large", "small"])
@pytest.mark.parametrize(
    ("name", "T"), [("linear", 1000), ("cosine", 1000), ("sigmoid", 50), ("linear_logsnr", 50)]
)
def test_terms_equal_the_definition(name, T, variance, s2, textbook_betas):
    """From betas and their cumulated products, to 50 digits and without logsnr."""
    s2, log, pi = mpmath.mpf(s2), mpmath.log, mpmath.pi
    before, denoising = mpmath.mpf(1), []
    for t, beta in enumerate(textbook_betas(name, T), start=1):
        alpha_bar = before * (1 - beta)
        left = s2 * (1 - alpha_bar) / (alpha_bar * s2 + 1 - alpha_bar)  # Var(x_0 | x_t)
        if t == 1:
            reconstruction = (log(2 * pi * beta) + left / beta) / 2
        else:
            beta_tilde = beta * (1 - before) / (1 - alpha_bar)
            sigma2 = beta if isinstance(variance, FixedLarge) else beta_tilde
            weight = before * beta**2 / (1 - alpha_bar) ** 2  # of x_0 in the posterior mean, squared
            spread = log(sigma2 / beta_tilde) + beta_tilde / sigma2 - 1
            denoising.append((spread + weight * left / sigma2) / 2)
        before = alpha_bar
    prior = (-log(1 - before) + (1 - before) - 1 + before * s2) / 2

    actual = expected_terms(Chain(SCHEDULES[name](T, logsnr_max="paper")), variance, math.sqrt(s2))

    def close(ours, textbook):
        expected = torch.tensor([float(x) for x in textbook], dtype=torch.float64)
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=0)

    close(actual.reconstruction, [reconstruction])
    close(actual.denoising[0], denoising)
    close(actual.prior, [prior])


def test_denoising_under_the_small_variance_is_a_difference_of_snr():
    """L_t = 1/2 (SNR_s - SNR_t) |x_0 - x0_hat|^2 (VDM, equation 14)."""
    chain = Chain(CosineSchedule(50))
    step = chain.step(torch.arange(2, 51))
    x0, gap = torch.randn(2, 49, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    term = VariationalBound(chain, GaussianDecoder()).term(step, x0, Prediction(x0 - gap, gap, FixedSmall()))
    expected = 0.5 * (step.s.snr - step.t.snr) * gap.square().sum(1)
    torch.testing.assert_close(term, expected, rtol=1e-10, atol=0)


# ------------------------------------------------------------------ Monte Carlo


def textbook_log_ratio(chain, x0, denoise, log_sigma2):
    """One draw of log q(x_1:K | x_0) - log p(x_0:K) per example, from whole trajectories."""
    alpha_bar = [torch.ones((), dtype=torch.float64)]
    alpha_bar += list(chain.level(torch.arange(1, chain.num_steps + 1)).alpha_bar)
    generator = torch.Generator().manual_seed(1)
    x, log_ratio = x0, torch.zeros_like(x0)
    for i in range(1, chain.num_steps + 1):
        before, now = alpha_bar[i - 1], alpha_bar[i]
        beta = 1 - now / before
        q = Normal((1 - beta).sqrt() * x, beta.sqrt())
        xt = q.mean + q.stddev * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x0_hat = denoise(xt, chain.level(torch.full((len(x0),), i)), None).x0_hat
        mean = before.sqrt() * beta * x0_hat + (1 - beta).sqrt() * (1 - before) * xt
        beta_tilde = beta if i == 1 else beta * (1 - before) / (1 - now)
        p = Normal(mean / (1 - now), (0.5 * log_sigma2(i == 1, beta, beta_tilde)).exp())
        log_ratio = log_ratio + q.log_prob(xt) - p.log_prob(x)
        x = xt
    return (log_ratio - Normal(0.0, 1.0).log_prob(x)).sum(1)


VARIANCES = {
    "fixed_small": (FixedSmall(), lambda first, beta, beta_tilde: beta_tilde.log()),
    "fixed_large": (FixedLarge(), lambda first, beta, beta_tilde: beta.log()),
    "learned_range": (
        LearnedRange("beta"),
        lambda first, beta, beta_tilde: 0.8 * beta.log() + 0.2 * beta_tilde.log(),  # var_output 0.6
    ),
}


@pytest.mark.parametrize("timesteps", [[1, 2, 3, 4, 5, 6], [2, 5, 6], [4]], ids=["full", "respaced", "one"])
@pytest.mark.parametrize("name", VARIANCES)
def test_terms_add_up_to_the_bound(name, timesteps):
    """E log q(x_1:K | x_0) / p(x_0:K), with a denoiser for data of the wrong width."""
    variance, log_sigma2 = VARIANCES[name]
    chain = Chain(CosineSchedule(6, logsnr_max="paper"), torch.tensor(timesteps))
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(40_000, 2, generator=generator, dtype=torch.float64)

    def denoise(xt, level, cond):
        exact = gaussian_denoiser((2,), 0.8, variance)(xt, level)
        return replace(exact, var_output=torch.full_like(xt, 0.6))

    terms = VariationalBound(chain, GaussianDecoder()).terms(
        denoise, x0, lambda i: torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    )
    assert terms.denoising.shape == (40_000, len(timesteps) - 1)
    direct = textbook_log_ratio(chain, x0, denoise, log_sigma2)
    difference = direct - terms.total
    standard_error = difference.std() / len(x0) ** 0.5
    assert standard_error < 0.03  # the draws say something
    assert difference.mean().abs() < 3 * standard_error


# ------------------------------------------------------------------ the rest of the contract


@pytest.mark.parametrize("decoder", [GaussianDecoder(), DiscretizedGaussian(17)], ids=str)
@pytest.mark.parametrize("timesteps", [[20], [7], [3, 20], list(range(1, 21))])
def test_every_chain_has_a_finite_bound(make_variance, decoder, timesteps):
    """Also with one step, where there is no second step."""
    chain = Chain(CosineSchedule(20), torch.tensor(timesteps))
    x0 = torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.25, -0.5]])
    denoise = gaussian_denoiser((3,), 0.5, make_variance())
    terms = VariationalBound(chain, decoder).terms(
        lambda xt, level, cond: replace(denoise(xt, level), var_output=torch.zeros_like(xt)),
        x0,
        lambda i: torch.full_like(x0, 0.1 * i - 0.5),
    )
    assert terms.denoising.shape == (2, len(timesteps) - 1)
    assert terms.total.isfinite().all()
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.total, terms.prior + terms.denoising.sum(1) + terms.reconstruction)


def test_terms_one_by_one_equal_all_terms():
    """Training, with a step per example, and evaluation compute the same terms."""
    chain = Chain(CosineSchedule(10))
    bound = VariationalBound(chain, DiscretizedGaussian(17))
    denoise = gaussian_denoiser((3,), 0.5, FixedLarge())
    x0 = torch.tensor([[-1.0, 0.0, 0.5]], dtype=torch.float64)
    eps = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everything = bound.terms(denoise, x0, lambda i: eps[i - 1 : i])
    step = chain.step(torch.arange(1, 11))
    prediction = denoise(diffuse(x0.expand(10, 3), eps, step.t), step.t)
    mixed = bound.term(step, x0.expand(10, 3), prediction)
    torch.testing.assert_close(mixed[:1], everything.reconstruction)
    torch.testing.assert_close(mixed[1:], everything.denoising[0])


@pytest.mark.parametrize("decoder", [GaussianDecoder(), DiscretizedGaussian(17)], ids=str)
@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall("beta_tilde"), LearnedRange("beta_tilde")])
def test_reconstruction_and_denoising_equal_term(variance, decoder):
    chain = Chain(CosineSchedule(10))
    bound = VariationalBound(chain, decoder, clip=(-1, 1))
    x0, x0_hat, var_output = torch.rand(3, 9, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prediction = Prediction(2 * x0_hat, x0_hat, variance, var_output)
    first, later = chain.step(torch.ones(9, dtype=torch.int64)), chain.step(torch.arange(2, 11))
    assert torch.equal(bound.reconstruction(first, x0, prediction), bound.term(first, x0, prediction))
    assert torch.equal(bound.denoising(later, x0, prediction), bound.term(later, x0, prediction))


@pytest.mark.parametrize("decoder", [GaussianDecoder(), DiscretizedGaussian(17), Softmax(17)], ids=str)
@pytest.mark.parametrize("first", [[1, 5, 1, 9], [2, 3, 4, 5], [1, 1, 1, 1]])
def test_selected_rows_equal_masked_rows(decoder, first, monkeypatch):
    """On CPUs L_0 is computed for the rows that need it, on other devices for all of them."""
    chain, x0 = Chain(CosineSchedule(10)), torch.tensor([[-1.0, 0.0, 0.5]]).expand(4, 3)
    bound, step = VariationalBound(chain, decoder), chain.step(torch.tensor(first))
    found = []
    for devices in (("cpu",), ()):
        monkeypatch.setattr("nelbo.diffusion.bound.SELECTING_DEVICES", devices)
        x0_hat = torch.full((4, 3), 0.1).requires_grad_()
        variance = torch.full((4, 3), 0.2).requires_grad_()
        term = bound.term(step, x0, Prediction(x0_hat, 2 * x0_hat, LearnedRange("beta_tilde"), variance))
        term.square().sum().backward()
        found.append((term.detach(), x0_hat.grad, variance.grad))
    for selected, masked in zip(*found, strict=True):
        torch.testing.assert_close(selected, masked)


@pytest.mark.parametrize("decoder", [GaussianDecoder(), DiscretizedGaussian(17), Softmax(17)], ids=str)
@pytest.mark.parametrize("devices", [("cpu",), ()], ids=["selected", "masked"])
def test_gradients_are_finite_at_a_level_without_signal(decoder, devices, monkeypatch):
    monkeypatch.setattr("nelbo.diffusion.bound.SELECTING_DEVICES", devices)
    chain, x0 = Chain(RectifiedFlowSchedule(10)), torch.tensor([[-1.0, 0.0, 0.5]]).expand(3, 3)
    step = chain.step(torch.tensor([1, 5, 10]))
    assert step.t.logsnr[2] == -torch.inf
    output = torch.full((3, 3), 0.1).requires_grad_()
    prediction = Prediction(output, 2 * output, FixedLarge())
    VariationalBound(chain, decoder).term(step, x0, prediction).sum().backward()
    assert output.grad.isfinite().all()
    assert output.grad.abs().sum() > 0


def test_a_clipped_bound_is_that_of_the_clipped_prediction():
    chain = Chain(CosineSchedule(10))
    step = chain.step(torch.arange(1, 11))
    x0, x0_hat = torch.rand(2, 10, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prediction = Prediction(3 * x0_hat, x0_hat, FixedSmall())
    clipped = replace(prediction, x0_hat=(3 * x0_hat).clamp(-1, 1))
    decoder = GaussianDecoder()
    actual = VariationalBound(chain, decoder, clip=(-1, 1)).term(step, x0, prediction)
    assert torch.equal(actual, VariationalBound(chain, decoder).term(step, x0, clipped))
    assert (actual < VariationalBound(chain, decoder).term(step, x0, prediction)).any()


def test_the_condition_reaches_the_denoiser():
    seen = []
    exact = gaussian_denoiser((3,), 0.5, FixedSmall())

    def denoise(xt, level, cond):
        seen.append(cond)
        return exact(xt, level)

    x0, cond = torch.zeros(2, 3), torch.tensor([4, 2])
    bound = VariationalBound(Chain(CosineSchedule(3)), GaussianDecoder())
    bound.terms(denoise, x0, lambda i: torch.zeros_like(x0), cond)
    assert len(seen) == 3
    assert all(given is cond for given in seen)


def test_the_first_step_is_scored_by_the_decoder():
    chain = Chain(CosineSchedule(10))
    step = chain.step(torch.tensor([1]))
    x0 = torch.tensor([[-1.0, 0.0, 0.5]], dtype=torch.float64)
    prediction = Prediction(x0 + 0.1, x0, FixedLarge())
    decoder = DiscretizedGaussian(17)
    expected = -sum_per_example(decoder.log_prob(x0, x0 + 0.1, step.log_beta))
    assert torch.equal(VariationalBound(chain, decoder).term(step, x0, prediction), expected)
