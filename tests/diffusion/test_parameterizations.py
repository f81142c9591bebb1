"""The target of every parameterization reproduces data and noise."""

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.contracts import check_parameterization
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.level import NoiseLevel, scale
from nelbo.diffusion.parameterizations import X0, Eps, Flow, V
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge

LOGSNR = torch.linspace(-12, 12, 49, dtype=torch.float64)
LEVEL = NoiseLevel(torch.arange(1, 50), LOGSNR)


def data_and_noise(size=49):
    return torch.randn(2, size, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def answering(output):
    """A network that always gives this output."""
    network = torch.nn.Module()
    network.forward = lambda xt, c, cond: output
    return network


def close(actual, expected, amplification):
    """Equal to rounding, where it is amplified by at most so much."""
    error = (actual - expected).abs().amax(dim=(1, 2))
    assert (error <= 1e-14 * amplification).all()


def test_every_parameterization_passes_its_check(make_parameterization):
    check_parameterization(make_parameterization())


class WrongSign(Flow):
    def eps_coefficients(self, level):
        skip, out = super().eps_coefficients(level)
        return skip, -out


class WrongTarget(Flow):
    def target(self, x0, eps, level):
        return x0 - eps


@pytest.mark.parametrize("wrong", [WrongSign, WrongTarget])
def test_a_wrong_parameterization_fails_its_check(wrong):
    with pytest.raises(AssertionError, match="times the rounding to be expected"):
        check_parameterization(wrong())


def test_coefficients_are_consistent(make_linear_parameterization):
    """eps_hat's coefficients are (1 - signal c_skip) / noise and -signal c_out / noise."""
    parameterization = make_linear_parameterization()
    skip, out = parameterization.coefficients(LEVEL)
    eps_skip, eps_out = parameterization.eps_coefficients(LEVEL)
    expected_skip = (1.0 - LEVEL.signal_scale * skip) / LEVEL.noise_scale
    torch.testing.assert_close(eps_skip, expected_skip, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(eps_out, -LEVEL.signal_scale * out / LEVEL.noise_scale, rtol=1e-9, atol=1e-12)
    assert {c.dtype for c in (skip, out, eps_skip, eps_out)} == {torch.float64}


@pytest.mark.parametrize("level", [LEVEL, NoiseLevel(LEVEL.t, LOGSNR + 20)], ids=["usual", "very clean"])
def test_v_is_accurate_at_clean_levels(level):
    skip, out = V().eps_coefficients(level)
    torch.testing.assert_close(skip.square() + out.square(), torch.ones_like(skip), rtol=1e-14, atol=0)
    torch.testing.assert_close((skip / out).log(), -0.5 * level.logsnr, rtol=0, atol=1e-13)


def test_the_bound_does_not_depend_on_the_parameterization():
    """The same prediction has the same bound as eps, x0 or v."""
    chain = Chain(CosineSchedule(49))
    step = chain.step(torch.arange(1, 50))
    x0, eps = data_and_noise()
    belief = x0 + 0.1 * torch.sin(torch.arange(12.0, dtype=torch.float64)).reshape(3, 4)
    xt = diffuse(x0, eps, step.t)
    implied = scale(1.0 / step.t.noise_scale, xt - scale(step.t.signal_scale, belief))
    bound = VariationalBound(chain, GaussianDecoder())
    terms = [
        bound.term(
            step, x0, Denoiser(answering(p.target(belief, implied, step.t)), p, FixedLarge())(xt, step.t)
        )
        for p in (Eps(), X0(), V())
    ]
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(terms[2], terms[1], rtol=1e-9, atol=0)


def test_only_the_prediction_of_the_noise_needs_signal_at_the_noisiest_level(make_parameterization):
    parameterization = make_parameterization()
    without_signal = NoiseLevel(torch.tensor(50), torch.tensor(-torch.inf, dtype=torch.float64))
    parameterization.check_noisiest(NoiseLevel(torch.tensor(50), torch.tensor(-40.0, dtype=torch.float64)))
    if isinstance(parameterization, Eps):
        with pytest.raises(ValueError, match="use parameterization=v, x0, edm or flow"):
            parameterization.check_noisiest(without_signal)
    else:
        parameterization.check_noisiest(without_signal)
