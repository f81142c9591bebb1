"""The control variate: its closed form, its mean, and the estimates from which it is subtracted."""

import math
import statistics

import pytest
import torch

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, ContinuousTime
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedSmall
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.by_class import bound_by_class
from nelbo.evaluation.control_variate import GaussianControl
from nelbo.evaluation.estimators import FullEstimator, ImportanceEstimator, StratifiedEstimator
from nelbo.evaluation.measure import measure
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import unit_of

T = 30
CHAIN = Chain(CosineSchedule(T))
CONTINUOUS = ContinuousTime(LinearLogSNRSchedule(None), bins=20)
MEANS = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)
STD = 0.3


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n, dims=4):
    """(n, dims) of a Gaussian with a mean and a full covariance."""
    return 0.5 + noise(n, dims) @ noise(dims, dims, seed=1)


def mixture_data(n, seed):
    component = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    return MEANS[component] + STD * noise(n, 2, seed=seed)


def mixture(std=STD):
    return GaussianMixtureDenoiser(MEANS, torch.full((3,), 1 / 3), std, FixedSmall())


def measured(estimator, denoise, x0, control=None, chain=CHAIN, batch_size=1000):
    index, n = torch.arange(len(x0)), len(x0)
    batches = [Batch(x0[rows], None, rows) for rows in index.split(batch_size)]
    bound = VariationalBound(chain, GaussianDecoder())
    unit = unit_of(x0[0].numel(), None)
    [result] = measure(estimator, [BoundVariant(bound)], denoise, batches, n, unit, control=control)
    return result


@pytest.mark.parametrize("chain", [CHAIN, CONTINUOUS], ids=["chain", "continuous time"])
def test_it_is_the_error_of_the_exact_denoiser_minus_its_expectation(chain):
    """With dense matrices: x0_hat = mean + G (x_t - signal mean), G = signal S (signal^2 S + noise^2)^-1."""
    x0, eps = correlated(200)[:6], noise(6, 4, seed=2)
    control = GaussianControl.fit(correlated(200))
    mean, S, eye = correlated(200).mean(0), torch.cov(correlated(200).T, correction=0), torch.eye(4).double()
    step = chain.step(torch.tensor([1, 2, 5, 9, 20, 30]))
    xt, values = diffuse(x0, eps, step.t), control(x0, eps, step)
    for i in range(6):
        signal, sigma = step.t.signal_scale[i], step.t.noise_scale[i]
        G = signal * S @ torch.linalg.inv(signal**2 * S + sigma**2 * eye)
        error = (x0[i] - mean - G @ (xt[i] - signal * mean)).square().sum()
        bias = (eye - signal * G) @ (x0[i] - mean)
        expected = bias.square().sum() + sigma**2 * (G.T @ G).trace()
        weight = 0.5 * step.t.snr[i]
        if i > 0:
            weight *= step.rate[i] * step.width if chain is CONTINUOUS else step.s.snr[i] / step.t.snr[i] - 1
        assert values[i].item() == pytest.approx((weight * (error - expected)).item(), rel=1e-9)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (2, 1100)])
def test_its_mean_over_the_noise_is_zero_whatever_the_data(shape):
    control = GaussianControl.fit(1.0 + noise(40, *shape))
    x0 = 3.0 * noise(1, *shape, seed=5).expand(1000, *shape)
    for i in (1, 7, T):
        values = control(x0, noise(1000, *shape, seed=i), CHAIN.step(torch.full((1000,), i)))
        assert abs(values.mean()) < 4 * values.std() / math.sqrt(1000)
        assert values.std() > 0.0


@pytest.mark.parametrize("shape", [(4,), (3, 8, 8)])
def test_its_mean_is_zero_in_autocast_too(shape):
    """Bases that are rounded to bfloat16 would not be orthogonal."""
    control = GaussianControl.fit(noise(40, *shape).float())
    arguments = (
        noise(30, *shape).float(),
        noise(30, *shape, seed=5).float(),
        CHAIN.step(torch.arange(30) + 1),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = control(*arguments)
    assert torch.equal(values, control(*arguments))


@pytest.mark.parametrize(
    ("shape", "n", "sizes"),
    [
        ((1, 8, 8), 180, [64]),
        ((1, 8, 8), 100, [1, 8, 8]),
        ((3, 32, 32), 80, [3, 32, 32]),
        ((3, 256, 256), 2, [3, 256, 256]),
        ((70_000,), 2, [None]),
    ],
)
def test_memory_of_the_bases_is_bounded(shape, n, sizes):
    control = GaussianControl.fit(torch.randn(n, *shape))
    assert [None if basis is None else len(basis) for basis in control.bases] == sizes


def test_nothing_is_left_of_the_noise_of_gaussian_data():
    """L_t is the weighted error itself, and the control all of its noise."""
    x0, one = STD * noise(1000, 2), torch.ones(2, dtype=torch.float64)
    control, denoise = (
        GaussianControl(0.0 * one, (None,), STD**2 * one),
        gaussian_denoiser((2,), STD, FixedSmall()),
    )
    plain, controlled = (
        measured(FullEstimator(), denoise, x0, c).estimate.denoising for c in (None, control)
    )
    assert controlled.mc_stderr < 0.05 * plain.mc_stderr
    bound = VariationalBound(CHAIN, GaussianDecoder())
    terms = [
        bound.terms(denoise, x0, lambda i, s=s: noise(1000, 2, seed=100 * s + i)).denoising.sum(1).mean()
        for s in range(100)
    ]
    assert controlled.mean == pytest.approx(statistics.mean(map(float, terms)), abs=0.4 * plain.mc_stderr)


ESTIMATORS = {
    "full": lambda seed: FullEstimator(seed),
    "importance": lambda seed: ImportanceEstimator(max_evaluations=1, pilot_evaluations=1, seed=seed),
    "stratified": lambda seed: StratifiedEstimator(8, seed),
}


@pytest.mark.slow
@pytest.mark.parametrize("chain", [CHAIN, CONTINUOUS], ids=["chain", "continuous time"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimates_are_unbiased_and_vary_less(name, chain):
    """Also where the Gaussian is that of other data: coefficients that fit badly do not bias them."""
    x0 = mixture_data(60, 0)
    wrong = GaussianControl.fit(torch.tensor([1.0, -3.0]) + 2.0 * noise(50, 2))
    errors = {}
    for key, control in {"none": None, "own": GaussianControl.fit(x0), "wrong": wrong}.items():
        totals = [
            measured(ESTIMATORS[name](seed), mixture(), x0, control, chain).estimate.total
            for seed in range(40)
        ]
        means = [total.mean for total in totals]
        errors[key] = (
            statistics.mean(means),
            statistics.stdev(means),
            statistics.mean(t.mc_stderr**2 for t in totals),
        )
    for key in ("own", "wrong"):
        gap, spread = errors[key][0] - errors["none"][0], math.hypot(errors[key][1], errors["none"][1])
        assert abs(gap) < 4 * spread / math.sqrt(40)
    assert errors["own"][2] < 0.9 * errors["none"][2]
    assert errors["wrong"][2] < 1.1 * errors["none"][2]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_tables_add_up_to_the_estimate_for_every_batch_size(name):
    x0 = mixture_data(50, 0)
    results = [
        measured(ESTIMATORS[name](0), mixture(), x0, GaussianControl.fit(x0), batch_size=b) for b in (7, 50)
    ]
    for result in results:
        total, prior = result.estimate.total, result.estimate.prior.mean
        assert result.examples.sum(1).mean().item() == pytest.approx(total.mean, rel=1e-12)
        assert result.examples.sum(1).std().item() / math.sqrt(50) == pytest.approx(total.stderr, rel=1e-9)
        assert result.contributions.sum().item() + prior == pytest.approx(total.mean, rel=1e-12)
        assert total.mean == pytest.approx(results[0].estimate.total.mean, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_a_coefficient_from_one_example_is_zero(n):
    x0 = mixture_data(n, 0)
    plain, controlled = (
        measured(StratifiedEstimator(8), mixture(), x0, control).estimate.total.mean
        for control in (None, GaussianControl.fit(mixture_data(50, 1)))
    )
    assert controlled == pytest.approx(plain, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("same_seed", [True, False])
def test_errors_of_differences_and_classes_of_stratified_fit_their_scatter(same_seed):
    """On new data in each repeat. The mean of L_t along the chain varies far more than these values."""
    differences, classes = [], []
    for seed in range(80):
        x0 = mixture_data(80, seed)
        control = GaussianControl.fit(x0)
        seeds = (seed, seed if same_seed else 1000 + seed)
        first, other = (
            measured(StratifiedEstimator(8, s), mixture(std), x0, control)
            for s, std in zip(seeds, (STD, 0.4), strict=True)
        )
        differences.append(paired_difference(first.examples.sum(1), other.examples.sum(1)))
        classes.append(bound_by_class(first.examples, torch.arange(80) % 4)[0].total)
    for estimates in (differences, classes):
        reported = math.sqrt(statistics.mean(estimate.stderr**2 for estimate in estimates))
        assert 0.75 < reported / statistics.stdev(estimate.mean for estimate in estimates) < 1.35
