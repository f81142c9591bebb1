"""The categorical parameterization is Bayes' rule: brute force, limits, gradients and an exact model."""

import math
from itertools import product

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, ContinuousTime
from nelbo.diffusion.decoders import Softmax
from nelbo.diffusion.denoiser import Denoiser, output_channels
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.parameterizations import Categorical
from nelbo.diffusion.parameterizations.categorical import posterior_mean
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedSmall, LearnedRange

LEVELS = 5
VALUES = torch.linspace(-1.0, 1.0, LEVELS, dtype=torch.float64)


def level(*logsnr):
    return NoiseLevel(torch.arange(1, len(logsnr) + 1), torch.tensor(logsnr, dtype=torch.float64))


def example(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(logits, xt, at):
    """E[x_0 | x_t] of one scalar by adding up p(v_k) N(x_t; a v_k, b^2)."""
    a, b = at.signal_scale.item(), at.noise_scale.item()
    weights = [
        math.exp(logit - 0.5 * ((xt - a * v) / b) ** 2)
        for logit, v in zip(logits, VALUES.tolist(), strict=True)
    ]
    return sum(w * v for w, v in zip(weights, VALUES.tolist(), strict=True)) / sum(weights)


def test_x0_hat_is_the_posterior_mean_of_every_scalar():
    at, xt, output = level(-3.0, 0.5, 4.0), example(0, 3, 2, 4), example(1, 3, 2 * LEVELS, 4)
    x0_hat, eps_hat = Categorical(LEVELS).estimates(output, xt, at)
    for b, c, i in product(range(3), range(2), range(4)):
        logits = output[b, c * LEVELS : (c + 1) * LEVELS, i].tolist()
        one = NoiseLevel(at.t[b], at.logsnr[b])
        assert x0_hat[b, c, i].item() == pytest.approx(by_hand(logits, xt[b, c, i].item(), one), abs=1e-13)
    torch.testing.assert_close(diffuse(x0_hat, eps_hat, at), xt, rtol=0, atol=1e-13)


def test_gradients_equal_those_of_the_formula():
    logits, mean = example(0, 40, 7).requires_grad_(), example(1, 40).requires_grad_()
    precision, values = (
        example(2, 40).square().requires_grad_(),
        torch.linspace(-1, 1, 7, dtype=torch.float64),
    )
    expected = (
        (logits - precision[:, None] / 2 * (mean[:, None] - values).square()).softmax(-1) * values
    ).sum(-1)
    found = posterior_mean(logits, mean, precision, values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    weight = example(3, 40)
    for actual, of_formula in zip(
        torch.autograd.grad((found * weight).sum(), (logits, mean, precision)),
        torch.autograd.grad((expected * weight).sum(), (logits, mean, precision)),
        strict=True,
    ):
        torch.testing.assert_close(actual, of_formula, rtol=0, atol=1e-13)


def test_blocks_do_not_change_the_result(monkeypatch):
    logits, mean, values = example(0, 50, 6), example(1, 50), torch.linspace(-1, 1, 6, dtype=torch.float64)
    found = []
    for size in (2**18, 6 * 7):
        monkeypatch.setattr("nelbo.diffusion.parameterizations.categorical.LOGITS_ON_CPU", size)
        inputs = [x.clone().requires_grad_() for x in (logits, mean, mean.exp())]
        posterior = posterior_mean(*inputs, values)
        found.append((posterior.detach(), *torch.autograd.grad(posterior.square().sum(), inputs)))
    for whole, in_blocks in zip(*found, strict=True):
        torch.testing.assert_close(in_blocks, whole, rtol=0, atol=1e-14)


def test_without_noise_it_is_the_data_and_without_signal_the_mean_of_the_prior():
    x0 = VALUES[torch.arange(4) % LEVELS].reshape(1, 1, 4)
    output = 3.0 * example(0, 1, LEVELS, 4)
    clean = level(13.0)
    x0_hat, _ = Categorical(LEVELS).estimates(output, diffuse(x0, example(1, 1, 1, 4), clean), clean)
    torch.testing.assert_close(x0_hat, x0, rtol=0, atol=1e-12)
    x0_hat, eps_hat = Categorical(LEVELS).estimates(output, example(1, 1, 1, 4), level(-math.inf))
    torch.testing.assert_close(x0_hat[0, 0], output[0].softmax(0).T @ VALUES, rtol=0, atol=1e-14)
    torch.testing.assert_close(eps_hat, example(1, 1, 1, 4), rtol=0, atol=1e-14)


def test_float32_is_precise_at_the_cleanest_level_of_vdm():
    """Neighbours of 256 levels differ by 18 nats there, so an error of 1e-3 nats would be visible."""
    at, levels = level(13.3), 256
    x0 = (torch.arange(levels) / 127.5 - 1).reshape(1, 1, -1)
    output, xt = torch.zeros(1, levels, levels), diffuse(x0.float(), example(0, 1, 1, levels).float(), at)
    x0_hat, _ = Categorical(levels).estimates(output, xt, at)
    exact, _ = Categorical(levels).estimates(output.double(), xt.double(), at)
    torch.testing.assert_close(x0_hat.double(), exact, rtol=0, atol=2e-6)


def test_bfloat16_logits_give_float32_estimates():
    output, xt = example(0, 2, LEVELS, 3).bfloat16().requires_grad_(), example(1, 2, 1, 3).float()
    x0_hat, eps_hat = Categorical(LEVELS).estimates(output, xt, level(0.0, 2.0))
    assert x0_hat.dtype == eps_hat.dtype == torch.float32
    x0_hat.sum().backward()
    assert output.grad.dtype == torch.bfloat16


def test_the_gradient_of_a_learned_schedule_is_precise_with_rounded_probabilities():
    """At noisy levels x_t / signal is large, and terms that only cancel for exact p would dominate."""
    logits, values = 2.0 * example(0, 200, 16), torch.linspace(-1, 1, 16, dtype=torch.float64)
    mean, precision = 90.0 * example(1, 200), torch.full((200,), 1.2e-4, dtype=torch.float64)
    gradients = []
    for dtype in (torch.float64, torch.bfloat16):
        at = precision.clone().requires_grad_()
        posterior_mean(logits.to(torch.bfloat16).to(dtype), mean, at, values).sum().backward()
        gradients.append(at.grad)
    exact, rounded = gradients
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


class Independent(torch.nn.Module):
    """The network of data with independent scalars: the log prior, whatever x_t is."""

    def __init__(self, log_prior, size):
        super().__init__()
        self.output = log_prior[None, :, None].expand(1, -1, size)

    def forward(self, xt, c, cond):
        return self.output.expand(len(xt), -1, -1)


def test_the_bound_of_independent_levels_is_their_entropy():
    """In continuous time the bound of the exact model is the negative log likelihood."""
    prior = torch.tensor([0.5, 0.2, 0.0, 0.25, 0.05], dtype=torch.float64)
    log_prior, n = prior.clamp(min=1e-300).log(), 4000
    chain = ContinuousTime(LinearLogSNRSchedule(num_steps=None, logsnr_max=9.0, logsnr_min=-12.0), bins=400)
    denoiser = Denoiser(Independent(log_prior, n), Categorical(LEVELS), FixedSmall())
    drawn = torch.multinomial(prior, n, replacement=True, generator=torch.Generator().manual_seed(0))
    x0 = VALUES[drawn].reshape(1, 1, n)
    noise = iter(example(1, 401, 1, 1, n))
    bound = VariationalBound(chain, Softmax(LEVELS))
    with torch.no_grad():
        found = bound.terms(denoiser, x0, lambda i: next(noise)).total.item() / n
    expected = -log_prior[drawn].mean().item()
    assert found == pytest.approx(expected, abs=0.01)
    assert found < math.log(LEVELS) - 0.3


def test_a_learned_variance_has_channels_of_its_own():
    chain, parameterization, variance = (
        Chain(LinearLogSNRSchedule(num_steps=10)),
        Categorical(LEVELS),
        LearnedRange(),
    )
    channels = output_channels(parameterization, variance, 3)
    assert channels == 3 * LEVELS + 3
    network = torch.nn.Module()
    network.forward = lambda xt, c, cond: torch.arange(channels, dtype=torch.float32).expand(2, channels)
    step = chain.step(torch.tensor([1, 2]))
    prediction = Denoiser(network, parameterization, variance)(torch.zeros(2, 3), step.t)
    assert prediction.var_output.tolist() == [[3.0 * LEVELS + i for i in range(3)]] * 2


def test_continuous_data_has_no_levels():
    with pytest.raises(ValueError, match="parameterization=categorical needs data with discrete levels"):
        Categorical(None)
