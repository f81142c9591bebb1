"""EDM's preconditioning, loss and samplers (NVlabs/edm), computed by its own code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime, LevelChain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import GaussianMixtureDenoiser
from nelbo.diffusion.level import InfinitesimalStep, NoiseLevel, scale
from nelbo.diffusion.losses import EDMLoss, NoisyBatch, Uncertainty
from nelbo.diffusion.losses.base import log_normal_density, logsnr_change
from nelbo.diffusion.noise_conditioning import LogSigmaConditioning
from nelbo.diffusion.parameterizations import EDM
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.samplers import EDMSampler, Heun
from nelbo.diffusion.schedules import CosineSchedule, EDMSchedule, LinearLogSNRSchedule
from nelbo.diffusion.spacings import Even, Karras
from nelbo.diffusion.variances import FixedSmall

GOLDEN = Path(__file__).parents[1] / "golden"
SIGMA_DATA = 0.5


class Network(nn.Module):
    """tanh(conv(x) + linear(c_noise)), which remembers its inputs."""

    def __init__(self, arrays) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.linear = nn.Linear(1, 3)
        for layer, name in ((self.conv, "c"), (self.linear, "l")):
            layer.weight.data = arrays[f"net.{name}.weight"]
            layer.bias.data = arrays[f"net.{name}.bias"]

    def forward(self, xt, c, cond):
        self.inputs = xt, c
        return torch.tanh(self.conv(xt) + self.linear(c[:, None])[:, :, None, None])


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "edm.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def config():
    return json.loads((GOLDEN / "edm.json").read_text())


@pytest.fixture
def denoiser(arrays):
    return Denoiser(Network(arrays), EDM(SIGMA_DATA), FixedSmall(), LogSigmaConditioning(factor=1.0))


def level_at(sigma) -> NoiseLevel:
    logsnr = -2.0 * sigma.double().log()
    return NoiseLevel(torch.zeros_like(logsnr), logsnr)


def close(ours, theirs):
    torch.testing.assert_close(ours.detach().to(theirs.dtype), theirs, rtol=1e-5, atol=1e-5)


def test_the_denoised_images_and_the_inputs_of_the_network_are_those_of_their_code(arrays, denoiser):
    level = level_at(arrays["sigma"])
    xt = scale(level.signal_scale, arrays["y"])
    prediction = denoiser(xt, level)
    given, c = denoiser.network.inputs
    close(given, arrays["network_input"])
    close(c, arrays["network_noise_label"])
    close(prediction.x0_hat, arrays["D"])


@pytest.fixture
def loss_of(arrays, config, denoiser):
    """(loss) -> the losses at the sigma of their code, divided by the density of the draw, and the levels."""
    mean, std = config["P_mean"], config["P_std"]
    sigma = (mean + std * arrays["loss.z"].flatten().double()).exp()
    level = level_at(sigma)
    point = torch.ones_like(sigma)
    step = InfinitesimalStep(level, torch.zeros_like(point).bool(), point, 1.0)
    x0 = arrays["x0"]
    noise = arrays["noise"]  # of unit scale
    xt = diffuse(x0, noise, level)
    bound = VariationalBound(ContinuousTime(EDMSchedule(), 1), GaussianDecoder())
    density = bound.chain.num_steps * logsnr_change(step) * log_normal_density(level, mean, std)

    def divided(kind):
        loss = kind(mean, std, SIGMA_DATA)
        terms = loss(NoisyBatch(x0, noise, step), denoiser(xt, level), bound)
        return terms.loss.double() / density

    return divided


def test_the_loss_is_that_of_their_code(arrays, loss_of):
    """Theirs is lambda |D - x_0|^2 at drawn sigma; ours is that times the density of the draw."""
    close(loss_of(EDMLoss), arrays["loss.per_element"].double().flatten(1).mean(1))


def test_the_uncertainty_loss_weights_their_loss_by_fourier_features_of_their_noise_label(
    arrays, config, loss_of
):
    """EDM2, equation 21, with u from the features of EDM2: sqrt(2) cos(frequency c_noise + phase)."""
    made = []

    def trained(*arguments):
        loss = Uncertainty(*arguments)
        loss.weights.data.normal_(generator=torch.Generator().manual_seed(1))
        made.append(loss)
        return loss

    ours = loss_of(trained)
    sigma = (config["P_mean"] + config["P_std"] * arrays["loss.z"].flatten()).exp()
    c_noise = sigma.log() / 4
    features = 2**0.5 * torch.cos(torch.outer(c_noise, made[0].frequencies) + made[0].phases)
    u = features @ made[0].weights / 128**0.5
    assert u.std() > 0.1
    close(ours, arrays["loss.per_element"].double().flatten(1).mean(1) * (-u).exp() + u)


@pytest.fixture(scope="module")
def mixture(arrays):
    return GaussianMixtureDenoiser(
        arrays["mix.mu"].double(), arrays["mix.w"].double(), float(arrays["mix.std"]), FixedSmall()
    )


def draw(arrays, mixture, steps, sampler, chain=None):
    chain = Even().chain(EDMSchedule(half_bin=None, logsnr_max="paper"), steps) if chain is None else chain
    start = scale(chain.noisiest.noise_scale, arrays["latents"].double())
    churned = iter(arrays["churn_noise"].double())
    noise = {i: next(churned) for i in range(steps, 0, -1)}
    return sampler.sample(mixture, chain, start, lambda i: noise[i])


@pytest.mark.parametrize("sampler", [Heun(), EDMSampler()], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("steps", [18, 5])
def test_heun_gives_the_samples_of_their_code(arrays, mixture, steps, sampler):
    close(draw(arrays, mixture, steps, sampler), arrays[f"sample.heun{steps}"])


@pytest.mark.parametrize("spacing", [Even(), Karras()], ids=lambda spacing: type(spacing).__name__)
def test_heun_is_of_second_order_at_all_published_levels_but_the_last(spacing):
    chain = spacing.chain(EDMSchedule(logsnr_max="paper"), 18)
    assert (-0.5 * chain.noisiest.logsnr).exp().item() == pytest.approx(80.0)
    assert Heun().evaluations(chain) == EDMSampler().evaluations(chain) == 35


@pytest.mark.parametrize("churn_max", [50.0, 75.0])
def test_the_evaluations_of_churned_steps_are_counted(mixture, churn_max):
    """With churn_max=75, churn moves a level of this schedule above sigma_max."""
    chain = Even().chain(LinearLogSNRSchedule(None, logsnr_min=-10.0), 40)
    sampler, calls = EDMSampler(churn=40.0, churn_max=churn_max), []

    def denoise(x, level, cond=None):
        calls.append(level)
        return mixture(x, level, cond)

    x = torch.randn(1, *mixture.means.shape[1:], dtype=torch.float64)
    sampler.sample(denoise, chain, x, lambda i: x)
    assert len(calls) == sampler.evaluations(chain)


def test_churn_gives_the_samples_of_their_code(arrays, config, mixture):
    churn = config["churn"]
    sampler = EDMSampler(churn["S_churn"], churn["S_min"], churn["S_max"], churn["S_noise"])
    sampler.check_schedule(EDMSchedule())
    close(draw(arrays, mixture, 18, sampler), arrays["sample.heun18_churn"])


def test_karras_spacing_has_the_levels_of_their_schedule():
    wide = CosineSchedule(None, logsnr_max=-2 * np.log(0.002), logsnr_min=-2 * np.log(80.0))
    ours, theirs = Karras().chain(wide, 18), Even().chain(EDMSchedule(logsnr_max="paper"), 18)
    index = torch.arange(1, 19)
    torch.testing.assert_close(ours.level(index).logsnr, theirs.level(index).logsnr, rtol=1e-9, atol=1e-9)
    assert isinstance(ours, LevelChain)


def test_churn_between_timesteps_or_beyond_the_schedule_is_refused():
    with pytest.raises(ValueError, match=r"sampler\.churn=10 evaluates the network between timesteps"):
        EDMSampler(churn=10.0).check_schedule(CosineSchedule())
    with pytest.raises(ValueError, match=r"sampler\.churn=10 .* add sampler\.churn_max=56 or lower"):
        EDMSampler(churn=10.0, churn_max=80.0).check_schedule(EDMSchedule())
    EDMSampler().check_schedule(CosineSchedule())
