"""Precision is a property of the code, not of the dtype of the images or of the network."""

import copy

import mpmath
import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import V
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import LinearSchedule
from nelbo.diffusion.variances import LearnedRange

LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv1d(2, 4, 1)

    def forward(self, xt, c, cond):
        return self.layer(xt)


class Model(torch.nn.Module):
    """A module with all parts, as in training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.chain = Chain(LinearSchedule(1000))
        self.bound = VariationalBound(self.chain, DiscretizedGaussian(256))
        self.denoiser = Denoiser(Network(), V(), LearnedRange("beta_tilde"))


def exact(x):
    return x.detach().double()


@LOW
def test_a_module_in_low_precision_keeps_its_levels(dtype):
    model = Model()
    before = copy.deepcopy(model)
    model = model.to(dtype)
    assert model.denoiser.network.layer.weight.dtype == dtype
    index = torch.arange(1, 1001)
    step, untouched = model.chain.step(index), before.chain.step(index)
    for name in ("log_beta", "log_beta_tilde", "step_noise_fraction"):
        assert getattr(step, name).dtype == torch.float64
        assert torch.equal(getattr(step, name), getattr(untouched, name))
    assert torch.equal(model.chain.schedule.table(), before.chain.schedule.table())


@LOW
def test_low_precision_rounds_results_and_not_coefficients(dtype):
    """The reference is the same network in float64; the difference is the rounding of a few operations."""
    model = Model().to(dtype)
    reference = copy.deepcopy(model).double()
    xt = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    level = model.chain.level(torch.tensor([1, 10, 500, 1000]))
    actual, expected = model.denoiser(xt, level), reference.denoiser(xt.double(), level)
    assert actual.x0_hat.dtype == actual.eps_hat.dtype == dtype
    eps = torch.finfo(dtype).eps
    for name in ("x0_hat", "eps_hat", "var_output"):
        assert (exact(getattr(actual, name)) - getattr(expected, name)).abs().max() < 8 * eps


@LOW
def test_autocast_affects_the_network_only(dtype):
    model = Model()
    x0 = torch.rand(4, 2, 5, generator=torch.Generator().manual_seed(0)).mul(255).round() / 127.5 - 1
    step = model.chain.step(torch.tensor([1, 10, 500, 1000]))
    xt = diffuse(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)), step.t)
    with torch.autocast("cpu", dtype=dtype):
        assert model.denoiser.network(xt, None, None).dtype == dtype
        inside = model.denoiser(xt, step.t)
        term = model.bound.term(step, x0, inside)
    assert inside.x0_hat.dtype == term.dtype == torch.float32
    assert torch.equal(term, model.bound.term(step, x0, inside))


@pytest.mark.parametrize("timestep", [900, 950, 990, 1000])
def test_the_prior_is_accurate_in_float32(timestep):
    """At x_0 = 0 it is 4e-10 to 4e-8 nats at these ends of the chain; float32 resolves 6e-8 next to 1."""
    chain = Chain(LinearSchedule(1000, logsnr_max="paper"), torch.tensor([timestep]))
    alpha_bar = 1 / (1 + mpmath.exp(-mpmath.mpf(chain.noisiest.logsnr.item())))
    expected = float((-mpmath.log1p(-alpha_bar) - alpha_bar) / 2)
    prior = VariationalBound(chain, DiscretizedGaussian(256)).prior(torch.zeros(1, 1, dtype=torch.float32))
    assert prior.dtype == torch.float32
    assert prior.item() == pytest.approx(expected, rel=1e-6)
    # the usual formula has no digit left, and the sign of its rounding
    log_var = chain.noisiest.log_noise_var.float()
    usual = 0.5 * (-1.0 - log_var + log_var.exp())
    assert abs(usual.item() / expected - 1) > 0.1


@pytest.mark.parametrize("timestep", [1, 2, 500, 999, 1000])
def test_float32_images_lose_no_more_than_float32_carries(timestep):
    """Every term from float32 data and predictions is that of float64 to 1e-5, at either end."""
    model = Model().double()
    g = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 256, (3, 2, 5), generator=g).double() / 127.5 - 1
    step = model.chain.step(torch.full((3,), timestep))
    xt = diffuse(x0, torch.randn(x0.shape, generator=g, dtype=torch.float64), step.t)
    with torch.no_grad():
        expected = model.bound.term(step, x0, model.denoiser(xt, step.t))
        actual = model.bound.term(step, x0.float(), model.float().denoiser(xt.float(), step.t))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=0)
