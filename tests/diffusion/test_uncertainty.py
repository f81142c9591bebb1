"""EDM2's learned weight per level: closed forms, and its parameters in a run."""

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, ContinuousTime
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.losses import EDMLoss, NoisyBatch, Uncertainty
from nelbo.diffusion.losses.base import logsnr_change
from nelbo.diffusion.parameterizations import EDM, Eps, Flow
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedSmall

CHAINS = {"timesteps": Chain(CosineSchedule(6)), "continuous": ContinuousTime(CosineSchedule(None), 5)}
PER_LEVEL = 50


def zero(xt, c, cond):
    return torch.zeros_like(xt)


def example(chain, parameterization):
    """PER_LEVEL examples at each level, and the prediction of a network that returns 0."""
    generator = torch.Generator().manual_seed(0)
    step = chain.step(torch.arange(1, chain.num_steps + 1).repeat_interleave(PER_LEVEL))
    x0, eps = torch.randn(2, chain.num_steps * PER_LEVEL, 3, generator=generator, dtype=torch.float64)
    prediction = Denoiser(zero, parameterization, FixedSmall())(diffuse(x0, eps, step.t), step.t)
    return NoisyBatch(x0, eps, step), prediction, VariationalBound(chain, GaussianDecoder())


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("parameterization", [EDM(), Eps(), Flow()], ids=["edm", "eps", "flow"])
def test_untrained_weights_give_the_loss_of_edm(chain, parameterization):
    given = example(chain, parameterization)
    torch.testing.assert_close(Uncertainty()(*given).loss, EDMLoss()(*given).loss)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_learned_weight_converges_to_the_logarithm_of_the_mean_loss_per_level(chain):
    given = example(chain, EDM())
    step, per_level = given[0].step, (chain.num_steps, PER_LEVEL)
    loss, plain = (kind(mean=-0.4, std=2.0) for kind in (Uncertainty, EDMLoss))
    loss.double()
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=1000, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(*given).loss.mean()
        value.backward()
        return value

    optimizer.step(closure)
    weighted = plain(*given).loss / (chain.num_steps * logsnr_change(step) * plain.density(step.t))
    expected = weighted.reshape(per_level).mean(1).log()
    assert expected.std() > 0.1
    learned = loss.log_loss(step.t).detach().reshape(per_level)[:, 0]
    torch.testing.assert_close(learned, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("option", ["std", "sigma_data", "features"])
def test_arguments_that_are_not_positive_are_refused(option):
    with pytest.raises(ValueError, match=f"loss.{option}=0 must be above 0"):
        Uncertainty(**{option: 0})
