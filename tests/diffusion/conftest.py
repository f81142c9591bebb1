"""Fixtures of the tests of diffusion: the files of conf, reference schedules, repeatable examples."""

import functools
import importlib
import inspect
from pathlib import Path

import hypothesis
import mpmath
import pytest
import torch
from omegaconf import OmegaConf

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.parameterizations import LinearParameterization
from nelbo.diffusion.schedules import AdaptiveSchedule, CosineSchedule, LearnedSchedule
from nelbo.diffusion.step_cost_table import StepCostTable

CONF = Path(__file__).parents[2] / "conf"

# the same examples on every machine, however slow it is
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
mpmath.mp.dps = 50


def components(group):
    """Each file of conf/group as a parameter: its class, given the file's arguments."""
    parameters = []
    for path in sorted((CONF / group).glob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))  # as Hydra reads it
        config.pop("defaults", None)
        config.pop("_partial_", None)
        target = config.pop("_target_")
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name, None)
        assert cls is not None, f"{path}: there is no {target}"
        parameters.append(pytest.param(functools.partial(cls, **config), id=path.stem))
    return parameters


def is_learned(parameter) -> bool:
    return issubclass(parameter.values[0].func, LearnedSchedule)


def has_timesteps(parameter) -> bool:
    return not issubclass(parameter.values[0].func, LearnedSchedule | AdaptiveSchedule)


@pytest.fixture(scope="session", params=[p for p in components("schedule") if has_timesteps(p)])
def make_schedule(request):
    """Makes a schedule that can have timesteps."""
    return request.param


@pytest.fixture(scope="session", params=components("schedule"))
def make_continuous(request):
    """Makes a schedule in continuous time."""
    return functools.partial(request.param, num_steps=None)


@pytest.fixture(scope="session", params=[p for p in components("schedule") if is_learned(p)])
def make_learned(request):
    return request.param


def with_levels(parameter):
    """The parameter, with the argument that the data supplies."""
    make, has_levels = parameter.values[0], "levels" in inspect.signature(parameter.values[0].func).parameters
    return pytest.param(functools.partial(make, levels=5) if has_levels else make, id=parameter.id)


PARAMETERIZATIONS = [with_levels(parameter) for parameter in components("parameterization")]


@pytest.fixture(scope="session", params=PARAMETERIZATIONS)
def make_parameterization(request):
    return request.param


@pytest.fixture(
    scope="session",
    params=[p for p in PARAMETERIZATIONS if issubclass(p.values[0].func, LinearParameterization)],
)
def make_linear_parameterization(request):
    return request.param


@pytest.fixture(scope="session", params=components("c_noise"))
def make_conditioning(request):
    return request.param


@pytest.fixture(scope="session", params=components("variance"))
def make_variance(request):
    """Makes the variance; one that is measured gets moments for up to 5000 timesteps."""
    if "log_mse" in inspect.signature(request.param).parameters:
        return functools.partial(request.param, torch.linspace(-6.0, 0.0, 5000, dtype=torch.float64))
    return request.param


@pytest.fixture(scope="session", params=components("loss"))
def make_loss(request):
    return request.param


@pytest.fixture(scope="session", params=components("timesteps"))
def make_timesteps(request):
    """Makes a sampler; one that depends on noise levels gets the chain of a cosine schedule."""
    if "chain" in inspect.signature(request.param).parameters:
        return lambda num_steps: request.param(num_steps, Chain(CosineSchedule(num_steps)))
    return request.param


@pytest.fixture(scope="session", params=components("sampler"))
def make_sampler(request):
    return request.param


@pytest.fixture(scope="session", params=components("spacing"))
def make_spacing(request):
    """(costs) -> the spacing, with the costs of steps where it depends on them."""
    if "costs" in inspect.signature(request.param).parameters:
        return request.param
    return lambda costs: request.param()


@pytest.fixture(scope="session")
def random_costs():
    """(T, seed) -> a table of costs that no bound has."""

    def make(T, seed=0):
        g = torch.Generator().manual_seed(seed)
        impossible = torch.ones(T, T + 1, dtype=torch.bool).tril()
        first, step = torch.rand(2, T, T + 1, generator=g, dtype=torch.float64).masked_fill(
            impossible, torch.inf
        )
        prior = torch.rand(T, generator=g, dtype=torch.float64)
        return StepCostTable(torch.arange(1, T + 1), first, step[:, :T], prior)

    return make


def _linear(T):
    first, last = mpmath.mpf("0.1") / T, mpmath.mpf(20) / T
    return [first + (last - first) * i / (T - 1) for i in range(T)]


def _cosine(T):
    def f(u):
        return mpmath.cos((u + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2) ** 2

    u = [mpmath.mpf(i) / T for i in range(T + 1)]
    return [min(1 - f(u[i + 1]) / f(u[i]), mpmath.mpf("0.999")) for i in range(T)]


def _from_alpha_bar(alpha_bar, T):
    values = [mpmath.mpf(1), *(alpha_bar(mpmath.mpf(i) / T) for i in range(1, T + 1))]
    return [1 - values[i + 1] / values[i] for i in range(T)]


def _sigmoid(T):
    def sigmoid(x):
        return 1 / (1 + mpmath.exp(-x))

    def alpha_bar(u):
        share = (sigmoid(mpmath.mpf(3)) - sigmoid(6 * u - 3)) / (
            sigmoid(mpmath.mpf(3)) - sigmoid(mpmath.mpf(-3))
        )
        return max(share, mpmath.mpf("1e-9"))

    return _from_alpha_bar(alpha_bar, T)


def _linear_logsnr(T):
    return _from_alpha_bar(lambda u: 1 / (1 + mpmath.exp(-(mpmath.mpf("13.3") - u * mpmath.mpf("18.3")))), T)


@pytest.fixture(scope="session")
def textbook_betas():
    """(schedule, T) -> the published betas, beta_1 first, to 50 digits and without our code."""
    formulas = {
        "linear": _linear,
        "cosine": _cosine,
        "sigmoid": _sigmoid,
        "linear_logsnr": _linear_logsnr,
    }
    return functools.cache(lambda name, T: formulas[name](T))
