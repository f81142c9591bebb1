import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange

CHAIN = Chain(CosineSchedule(100))


class Recorder(torch.nn.Module):
    """Records its arguments; returns ones for the mean and twos for the variance."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, xt, c, cond):
        self.given = xt, c, cond
        return torch.cat([torch.full_like(xt, value + 1.0) for value in range(self.channels)], dim=1)


@pytest.mark.parametrize(
    ("scale", "shift", "expected"), [(1.0, 0.0, [1, 50, 100]), (10.0, -1.0, [0, 490, 990])]
)
def test_the_network_receives_scaled_timesteps(scale, shift, expected):
    network = Recorder(1)
    denoiser = Denoiser(network, Eps(), FixedSmall(), TimestepConditioning(scale, shift))
    xt, cond = torch.randn(3, 2, 4), torch.tensor([1, 0, 2])
    denoiser(xt, CHAIN.level(torch.tensor([1, 50, 100])), cond)
    given, c, given_cond = network.given
    assert given is xt
    assert c.tolist() == expected
    assert c.dtype == torch.float32
    assert given_cond is cond


def test_a_respaced_chain_passes_the_timesteps_of_training():
    network = Recorder(1)
    step = Chain(CHAIN.schedule, torch.tensor([10, 60, 100])).step(torch.tensor([2]))
    Denoiser(network, Eps(), FixedLarge())(torch.randn(1, 2, 4), step.t)
    assert network.given[1].tolist() == [60]


def test_the_second_half_of_the_channels_is_the_variance():
    level = CHAIN.level(torch.tensor([30, 70]))
    denoiser = Denoiser(Recorder(2), Eps(), LearnedRange())
    prediction = denoiser(torch.randn(2, 3, 4), level)
    assert torch.equal(prediction.eps_hat, torch.ones(2, 3, 4))
    assert torch.equal(prediction.var_output, torch.full((2, 3, 4), 2.0))
    step = CHAIN.step(torch.tensor([30, 70]))
    assert torch.equal(prediction.log_var(step), LearnedRange().log_var(step, prediction.var_output))


def test_a_fixed_variance_broadcasts():
    prediction = Denoiser(Recorder(1), Eps(), FixedLarge())(
        torch.randn(2, 3, 4), CHAIN.level(torch.tensor([3, 4]))
    )
    assert prediction.var_output is None
    assert prediction.log_var(CHAIN.step(torch.tensor([3, 4]))).shape == (2, 1, 1)


def test_a_clipped_prediction_is_consistent_with_x_t():
    level = CHAIN.level(torch.tensor([5, 50, 99]))
    xt = 2.0 * torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prediction = Denoiser(Recorder(1), Eps(), FixedLarge())(xt, level)
    clipped = prediction.clip(xt, level, -0.5, 0.25)
    assert torch.equal(clipped.x0_hat, prediction.x0_hat.clamp(-0.5, 0.25))
    assert not torch.equal(clipped.x0_hat, prediction.x0_hat)
    torch.testing.assert_close(diffuse(clipped.x0_hat, clipped.eps_hat, level), xt)


def test_detach_mean_leaves_gradients_in_the_variance_only():
    network = torch.nn.Conv1d(2, 4, 1)
    network.forward = lambda xt, c, cond: torch.nn.functional.conv1d(xt, network.weight)
    prediction = Denoiser(network, Eps(), LearnedRange())(
        torch.randn(1, 2, 4), CHAIN.level(torch.tensor([9]))
    )
    assert prediction.x0_hat.requires_grad
    detached = prediction.detach_mean()
    assert not detached.x0_hat.requires_grad
    assert not detached.eps_hat.requires_grad
    assert detached.var_output is prediction.var_output
    assert torch.equal(detached.x0_hat, prediction.x0_hat)
