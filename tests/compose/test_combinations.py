"""Every schedule, parameterization, variance, loss and timestep sampler, with every other.

A combination takes a training step in which the loss is finite and a gradient reaches every parameter, or
it is refused in a line that says what would work.
"""

from functools import cache, partial
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from nelbo.compose import build
from nelbo.data.batch import Batch
from nelbo.data.digits import Digits
from nelbo.diffusion.losses import VLB, Hybrid
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.schedules import AdaptiveSchedule, LearnedSchedule
from nelbo.diffusion.variances import LearnedVariance

CONF = Path(__file__).parents[2] / "conf"


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def combine(compose, tiny):
    """The default configuration with other choices, whose files are read without composing it again."""
    load = cache(lambda group, option: OmegaConf.load(CONF / group / f"{option}.yaml"))
    base = compose(*tiny)

    def combined(**choices):
        config = base.copy()
        for group, option in choices.items():
            config[group] = load(group, option)
        return config

    return combined


def cannot_work(module_config) -> bool:
    loss, variance = instantiate(module_config.loss), instantiate(module_config.variance)
    if isinstance(variance, partial):  # completed by what is measured on a trained network
        return True
    schedule = instantiate(module_config.schedule)
    if (
        isinstance(schedule, AdaptiveSchedule)
        and get_class(module_config.c_noise._target_) is TimestepConditioning
    ):
        return True
    if isinstance(schedule, LearnedSchedule) and not isinstance(loss, VLB):
        return True
    if isinstance(variance, LearnedVariance):
        return schedule.num_steps is None or not isinstance(loss, VLB | Hybrid)
    return isinstance(loss, Hybrid)


@cache
def digits() -> Digits:
    return Digits()


@cache
def batch() -> Batch:
    return digits().on_after_batch_transfer(digits().split("train").fetch(torch.arange(16), 0))


def take_a_step(module, stub_trainer) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    for parameter in module.parameters():  # away from the start, where the last layer is 0
        parameter.data += 0.05 * torch.randn_like(parameter)
    stub_trainer(module)
    outputs = module.training_step(batch(), 0)
    outputs["loss"].backward()
    return outputs


def check(config, stub_trainer):
    spec = digits().spec
    if cannot_work(config):
        with pytest.raises(ValueError, match=r"(add|use) (variance|loss|c_noise)="):
            build.build_module(config, spec)
        return
    module = build.build_module(config, spec)
    outputs = take_a_step(module, stub_trainer)
    for name in ("loss", "bound", "prior", "weight"):
        assert outputs[name].isfinite().all(), name
    assert outputs["bound"].shape == outputs["prior"].shape == outputs["weight"].shape == (16,)
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    # the mean's half of the output, and the variance's where it is learned
    for half in module.denoiser.network.out.weight.grad.chunk(module.denoiser.variance.output_channels(1)):
        assert half.any()


@pytest.mark.parametrize(
    ("schedule", "variance", "loss"), list(product(names("schedule"), names("variance"), names("loss")))
)
def test_a_training_step(schedule, variance, loss, combine, stub_trainer):
    check(combine(schedule=schedule, variance=variance, loss=loss), stub_trainer)


@pytest.mark.parametrize(  # fixed variances differ in the bound alone
    ("parameterization", "variance", "loss"),
    list(product(names("parameterization"), ("fixed_large", "learned_range"), names("loss"))),
)
def test_a_training_step_of_other_predictions(parameterization, variance, loss, combine, stub_trainer):
    check(combine(parameterization=parameterization, variance=variance, loss=loss), stub_trainer)


@pytest.mark.parametrize(
    ("schedule", "parameterization", "c_noise"),
    list(product(names("schedule"), names("parameterization"), names("c_noise"))),
)
def test_a_training_step_at_other_levels(schedule, parameterization, c_noise, combine, stub_trainer):
    choices = {"schedule": schedule, "parameterization": parameterization, "c_noise": c_noise}
    check(combine(**choices, loss="vlb", variance="fixed_large"), stub_trainer)


@pytest.mark.parametrize(("timesteps", "loss"), list(product(names("timesteps"), names("loss"))))
def test_a_training_step_at_other_timesteps(timesteps, loss, combine, stub_trainer):
    variance = "learned_range" if loss == "hybrid" else "fixed_large"
    check(combine(timesteps=timesteps, loss=loss, variance=variance), stub_trainer)


def test_a_conditional_network_receives_the_labels(combine, stub_trainer):
    config = combine()
    config.conditional = True
    module = build.build_module(config, digits().spec)
    take_a_step(module, stub_trainer)
    seen = module.denoiser.network.embedding.label.weight.grad.abs().sum(1) > 0
    assert seen.nonzero().flatten().tolist() == batch().cond.unique().tolist()


def test_the_network_sees_the_same_range_of_times_for_every_number_of_steps(combine):
    seen = []
    for T in (10, 1000):
        config = combine()
        config.schedule.num_steps = T
        denoiser = build.build_module(config, digits().spec).denoiser
        seen.append(denoiser.c_noise.scale * T)
    assert seen == [1000.0, 1000.0]
