import math
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.level import mean_per_example, scale
from nelbo.diffusion.losses import P2, VLB, Hybrid, LossTerms, MinSNR, NoisyBatch, Simple
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge, LearnedRange

K, SHAPE = 10, (2, 3, 4)
DIMS = math.prod(SHAPE)
CHAIN = Chain(CosineSchedule(K))
BOUND = VariationalBound(CHAIN, DiscretizedGaussian(17))
STEP = CHAIN.step(torch.arange(1, K + 1))


class Affine(torch.nn.Module):
    """A network with one parameter for the mean and one for the variance."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(0.9, dtype=torch.float64))
        self.var_output = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, xt, c, cond):
        return torch.cat([self.mean * xt, self.var_output + 0.1 * xt], dim=1)


def example():
    """Data on the grid, noise at every step of the chain, and the prediction of a learned variance."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 17, (K, *SHAPE), generator=generator).double() / 8 - 1
    eps = torch.randn(K, *SHAPE, generator=generator, dtype=torch.float64)
    network = Affine()
    prediction = Denoiser(network, Eps(), LearnedRange("beta_tilde"))(diffuse(x0, eps, STEP.t), STEP.t)
    return network, NoisyBatch(x0, eps, STEP), prediction


def gradients(value, network):
    grads = torch.autograd.grad(
        value, (network.mean, network.var_output), allow_unused=True, retain_graph=True
    )
    return [0.0 if grad is None else grad.item() for grad in grads]


# ------------------------------------------------------------------ every loss


def test_every_loss_returns_the_term_of_the_bound(make_loss):
    """The same value for every loss, per example and without gradient."""
    _, noisy, prediction = example()
    terms = make_loss()(noisy, prediction, BOUND)
    assert isinstance(terms, LossTerms)
    assert terms.loss.shape == terms.bound.shape == (K,)
    assert not terms.bound.requires_grad
    torch.testing.assert_close(
        terms.bound, BOUND.term(STEP, noisy.x0, prediction).detach(), rtol=1e-13, atol=0
    )


def test_a_learned_variance_gets_gradients_from_losses_that_accept_it_only(make_loss):
    network, noisy, prediction = example()
    loss = make_loss()
    mean, var_output = gradients(loss(noisy, prediction, BOUND).loss.sum(), network)
    assert mean != 0
    try:
        loss.check_variance(LearnedRange())
    except ValueError:
        assert var_output == 0
    else:
        assert var_output != 0


def test_every_loss_accepts_some_variance(make_loss):
    accepted = []
    for variance in (FixedLarge(), LearnedRange()):
        with suppress(ValueError):
            make_loss().check_variance(variance)
            accepted.append(variance)
    assert accepted


def test_a_perfect_prediction_has_finite_gradients(make_loss):
    """At a gap of 0, at the first step and at all others in one batch."""
    _, noisy, _ = example()
    var_output = torch.zeros_like(noisy.x0).requires_grad_()
    x0_hat, eps_hat = noisy.x0.clone().requires_grad_(), noisy.eps.clone().requires_grad_()
    prediction = Prediction(x0_hat, eps_hat, LearnedRange("beta_tilde"), var_output)
    make_loss()(noisy, prediction, BOUND).loss.sum().backward()
    for leaf in (var_output, x0_hat, eps_hat):
        assert leaf.grad is None or leaf.grad.isfinite().all()


def test_losses_keep_the_dtype_of_the_data(make_loss):
    _, noisy, prediction = example()
    noisy = replace(noisy, x0=noisy.x0.float(), eps=noisy.eps.float())
    x0_hat, eps_hat, var_output = (
        x.detach().float() for x in (prediction.x0_hat, prediction.eps_hat, prediction.var_output)
    )
    terms = make_loss()(noisy, Prediction(x0_hat, eps_hat, LearnedRange(), var_output), BOUND)
    assert terms.loss.dtype == terms.bound.dtype == torch.float32


# ------------------------------------------------------------------ regression losses


def eps_error(noisy, prediction):
    return mean_per_example((noisy.eps - prediction.eps_hat).square())


def x0_error(noisy, prediction):
    return mean_per_example((noisy.x0 - prediction.x0_hat).square())


def test_simple_is_the_error_of_the_noise():
    _, noisy, prediction = example()
    actual = Simple()(noisy, prediction, BOUND).loss
    torch.testing.assert_close(actual, eps_error(noisy, prediction), rtol=1e-13, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_weight_of_the_x0_error_is_at_most_gamma(gamma):
    """Hang et al. 2023: min(SNR, gamma) |x_0 - x0_hat|^2."""
    _, noisy, prediction = example()
    alpha_bar = STEP.t.alpha_bar
    snr = alpha_bar / (1 - alpha_bar)
    assert snr.min() < gamma < snr.max()
    expected = torch.minimum(snr, torch.tensor(gamma)) * x0_error(noisy, prediction)
    torch.testing.assert_close(MinSNR(gamma)(noisy, prediction, BOUND).loss, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 0.0), (1.0, 1.0), (2.0, 0.5)])
def test_p2_is_the_published_weight(k, gamma):
    """Choi et al. 2022: 1 / (k + SNR)^gamma on the error of the noise."""
    _, noisy, prediction = example()
    alpha_bar = STEP.t.alpha_bar
    expected = eps_error(noisy, prediction) / (k + alpha_bar / (1 - alpha_bar)) ** gamma
    torch.testing.assert_close(P2(k, gamma)(noisy, prediction, BOUND).loss, expected, rtol=1e-9, atol=0)


# ------------------------------------------------------------------ the bound as a loss


def test_the_mean_of_the_vlb_loss_over_the_steps_is_the_bound_minus_the_prior():
    _, noisy, _ = example()
    x0 = noisy.x0[:1].expand(K, *SHAPE)
    denoiser = Denoiser(Affine(), Eps(), LearnedRange())
    terms = BOUND.terms(denoiser, x0[:1], lambda i: noisy.eps[i - 1 : i])
    prediction = denoiser(diffuse(x0, noisy.eps, STEP.t), STEP.t)
    loss = VLB()(NoisyBatch(x0, noisy.eps, STEP), prediction, BOUND).loss
    torch.testing.assert_close(loss.mean() * DIMS, (terms.total - terms.prior)[0], rtol=1e-12, atol=0)


def test_the_hybrid_loss_is_the_published_sum():
    """L_simple + lambda T L_t, the latter in bits per dimension."""
    _, noisy, prediction = example()
    bits_per_dim = BOUND.term(STEP, noisy.x0, prediction) / (DIMS * math.log(2))
    expected = eps_error(noisy, prediction) + 0.001 * K * bits_per_dim
    torch.testing.assert_close(Hybrid()(noisy, prediction, BOUND).loss, expected, rtol=1e-12, atol=0)


def test_the_hybrid_loss_trains_the_mean_by_simple_and_the_variance_by_the_bound():
    network, noisy, prediction = example()
    hybrid = gradients(Hybrid(0.001)(noisy, prediction, BOUND).loss.sum(), network)
    simple = gradients(Simple()(noisy, prediction, BOUND).loss.sum(), network)
    vlb = gradients(BOUND.term(STEP, noisy.x0, prediction).sum(), network)
    assert hybrid[0] == pytest.approx(simple[0], rel=1e-12)
    assert hybrid[1] == pytest.approx(0.001 * K / (DIMS * math.log(2)) * vlb[1], rel=1e-12)
    assert vlb[0] != 0


@pytest.mark.parametrize("size", [2, 5, 10])
def test_the_factor_is_the_length_of_the_chain(size):
    """Without it the weight of the bound would decrease with the length of the chain."""
    chain = Chain(CosineSchedule(10), torch.arange(1, size + 1))
    bound = VariationalBound(chain, DiscretizedGaussian(17))
    _, noisy, prediction = example()
    noisy = NoisyBatch(noisy.x0[:1], noisy.eps[:1], chain.step(torch.tensor([1])))
    prediction = Prediction(prediction.x0_hat[:1], prediction.eps_hat[:1], FixedLarge())
    terms = VLB()(noisy, prediction, bound)
    assert terms.loss.item() == pytest.approx(size * terms.bound.item() / DIMS, rel=1e-12)


def test_a_mixed_batch_has_the_gradients_of_its_rows():
    """Neither branch of the bound affects the gradients of the other, not even as NaN."""
    _, noisy, prediction = example()
    leaves = [x.detach().clone().requires_grad_() for x in (prediction.x0_hat, prediction.var_output)]
    variance = LearnedRange("beta_tilde")

    def grads(rows):
        x0_hat, var_output = (leaf[rows] for leaf in leaves)
        term = BOUND.term(
            CHAIN.step(rows + 1), noisy.x0[rows], Prediction(x0_hat, x0_hat, variance, var_output)
        )
        return torch.autograd.grad(term.sum(), leaves)

    together = grads(torch.arange(K))
    apart = [sum(row) for row in zip(*(grads(torch.tensor([i])) for i in range(K)), strict=True)]
    for actual, expected in zip(together, apart, strict=True):
        assert actual.isfinite().all()
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_a_prediction_far_off_gives_finite_gradients():
    """At noisy levels 1 / signal is large; the decoder, whose term is not drawn there, must not see it."""
    bound = VariationalBound(CHAIN, DiscretizedGaussian(17, "tanh"))  # cubes what it sees
    x0 = torch.zeros(1, 3)
    x0_hat = torch.full_like(x0, 3e19).requires_grad_()
    var_output = torch.zeros_like(x0).requires_grad_()
    term = bound.term(CHAIN.step(torch.tensor([K])), x0, Prediction(x0_hat, x0, LearnedRange(), var_output))
    term.sum().backward()
    assert x0_hat.grad.isfinite().all()
    assert var_output.grad.isfinite().all()


def test_a_correct_mean_has_a_lower_loss(make_loss):
    """Halfway to the truth is better, for every loss and at every step."""
    _, noisy, prediction = example()
    prediction = replace(prediction, var_output=prediction.var_output.detach())
    better_x0 = (prediction.x0_hat + noisy.x0) / 2
    better_eps = (prediction.eps_hat + noisy.eps) / 2
    better = replace(prediction, x0_hat=better_x0, eps_hat=better_eps)
    torch.testing.assert_close(
        scale(STEP.t.signal_scale, better_x0) + scale(STEP.t.noise_scale, better_eps),
        diffuse(noisy.x0, noisy.eps, STEP.t),
    )
    loss = make_loss()
    assert (loss(noisy, better, BOUND).loss < loss(noisy, prediction, BOUND).loss).all()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (Hybrid, {"weight": 0.0}, r"loss\.weight=0"),
        (MinSNR, {"gamma": 0.0}, r"loss\.gamma=0"),
        (P2, {"k": 0.0}, "k=0"),
        (P2, {"gamma": -1.0}, "gamma=-1"),
    ],
)
def test_arguments_out_of_range_are_named(cls, arguments, named):
    with pytest.raises(ValueError, match=named):
        cls(**arguments)
