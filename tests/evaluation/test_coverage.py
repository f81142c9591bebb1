"""Coverage of the interval of +- 1.96 standard errors over 300 data sets and seeds."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from nelbo.compose.component import build_component
from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import GaussianMixtureDenoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import GaussianControl
from nelbo.evaluation.measure import measure
from nelbo.evaluation.units import unit_of
from nelbo.models import MLP

T, DIMS, N, REPEATS = 20, 2, 60, 300
MEANS = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
STD = 0.3
bound = VariationalBound(Chain(CosineSchedule(T)), GaussianDecoder())


def network() -> Denoiser:
    torch.manual_seed(0)
    small = MLP((DIMS,), DIMS, width=16, depth=1, dropout=0.0)
    for parameter in small.parameters():  # away from the start, where the last layer is 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return Denoiser(small, Eps(), FixedLarge(), TimestepConditioning(1000 / T)).eval()


def exact() -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(MEANS, torch.full((3,), 1 / 3), STD, FixedLarge())


def data(n, seed) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    component = torch.randint(3, (n,), generator=generator)
    return MEANS[component] + STD * torch.randn(n, DIMS, generator=generator)


def total(estimator, denoise, x0):
    batch, unit = Batch(x0, None, torch.arange(len(x0))), unit_of(DIMS, None)
    control = GaussianControl.fit(x0) if estimator.control_variate else None
    [result] = measure(estimator, [BoundVariant(bound)], denoise, [batch], len(x0), unit, control=control)
    return result.estimate.total


MODELS = {"exact mixture": exact, "small network": network}
NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/estimator").glob("*.yaml"))
SMALL = {
    "importance": {
        "target_stderr": 0.2,
        "max_evaluations": 20 * N,
        "evaluations_per_round": 6,
        "pilot_evaluations": 3 * N,
    }
}


@pytest.fixture(scope="module")
def truths() -> dict[str, float]:
    """The bounds of the models, from so many examples that their own errors do not matter."""
    x0 = data(60_000, seed=10**6)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return {
            name: bound.terms(make(), x0, lambda _: torch.randn(x0.shape, generator=noise))
            .total.mean()
            .item()
            for name, make in MODELS.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"), [*((name, "exact mixture") for name in NAMES), ("importance", "small network")]
)
def test_intervals_have_95_percent_coverage(name, model, truths):
    denoise, held = MODELS[model](), 0
    fresh = build_component("estimator", name, SMALL.get(name, {}))
    for seed in range(REPEATS):
        estimator = deepcopy(fresh)
        estimator.seed = seed
        estimate = total(estimator, denoise, data(N, seed))
        held += abs(estimate.mean - truths[model]) < 1.96 * estimate.stderr
    print(f"{name}, {model}: {held} of {REPEATS}")
    assert 0.90 <= held / REPEATS <= 0.99
