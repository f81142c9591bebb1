"""Likelihoods of a data set: values, errors and the parts of the errors."""

import math

import pytest
import torch
from torch.distributions import Normal

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, full_chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.likelihood import (
    RK4,
    DecoderDequantization,
    ExactDivergence,
    HutchinsonDivergence,
    ProbabilityFlow,
    UniformDequantization,
)
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall
from nelbo.evaluation.likelihoods import (
    ImportanceWeightedLikelihood,
    LikelihoodError,
    ODELikelihood,
    Sandwich,
    measure_likelihood,
)
from nelbo.evaluation.units import unit_of

SCHEDULE = LinearLogSNRSchedule(100, logsnr_max=18.4, logsnr_min=-20.0)
BOUND = VariationalBound(full_chain(SCHEDULE), GaussianDecoder())
MEANS = torch.tensor([[-1.0, 0.5], [0.3, 0.3], [1.2, -0.7]], dtype=torch.float64)
MIXTURE = GaussianMixtureDenoiser(MEANS, torch.full((3,), 1 / 3, dtype=torch.float64), 0.4, FixedLarge())


def batches(x0, size):
    index = torch.arange(len(x0)).flip(0)
    return [Batch(x0[part], None, part) for part in index.split(size)]


def measured(likelihood, denoise, x0, bound=BOUND, size=8):
    return measure_likelihood(likelihood, bound, denoise, batches(x0, size), len(x0))


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_ode_of_continuous_data_is_its_density():
    x0 = 0.5 * randn(20, 1)
    found = measured(
        ODELikelihood(RK4(60), ExactDivergence()), gaussian_denoiser((1,), 0.5, FixedLarge()), x0
    )
    exact = -Normal(0.0, 0.5).log_prob(x0)[:, 0]
    torch.testing.assert_close(found.examples, exact, rtol=0, atol=1e-4)
    assert found.total.mean == pytest.approx(found.examples.mean().item())
    assert found.total.stderr == pytest.approx(found.examples.std().item() / math.sqrt(20))
    assert found.total.mc_stderr == 0.0
    assert found.num_evaluations == 20 * 4 * (60 + 30)


def test_ode_in_continuous_time():
    """Also with the decoder, whose step goes from u = 0 to data."""
    schedule = LinearLogSNRSchedule(None, logsnr_max=6.0, logsnr_min=-20.0)
    bound = VariationalBound(full_chain(schedule), GaussianDecoder())
    x0, denoise = 0.5 * randn(6, 1), gaussian_denoiser((1,), 0.5, FixedLarge())
    plain = measured(ODELikelihood(RK4(20), ExactDivergence()), denoise, x0, bound)
    exact = -Normal(0.0, math.hypot(0.5, math.exp(-3.0))).log_prob(x0)[:, 0]
    torch.testing.assert_close(plain.examples, exact, rtol=0, atol=1e-3)
    likelihood = ODELikelihood(RK4(20), ExactDivergence(), DecoderDequantization(), 16)
    decoded = measured(likelihood, denoise, x0, bound)
    assert abs(decoded.total.mean - plain.total.mean) < 0.3


@pytest.mark.parametrize(
    "likelihood",
    [
        ODELikelihood(RK4(4), HutchinsonDivergence(2), DecoderDequantization(), dequantization_samples=2),
        ImportanceWeightedLikelihood(importance_samples=3),
        Sandwich(importance_samples=2),
    ],
    ids=["ode", "iwae", "sandwich"],
)
def test_value_of_an_example_does_not_depend_on_the_batches(likelihood):
    x0, bound = randn(10, 2), VariationalBound(Chain(CosineSchedule(5)), GaussianDecoder())
    one, two = (measured(likelihood, MIXTURE, x0, bound, size).examples for size in (10, 3))
    torch.testing.assert_close(one, two)


@pytest.mark.slow
def test_divergence_error_predicts_the_scatter_over_seeds():
    x0 = randn(12, 2)
    found = [
        measured(ODELikelihood(RK4(6), HutchinsonDivergence(4), seed=seed), MIXTURE, x0) for seed in range(12)
    ]
    scatter = torch.tensor([estimate.total.mean for estimate in found]).std().item()
    predicted = sum(estimate.total.mc_stderr**2 for estimate in found) / 12
    assert scatter == pytest.approx(math.sqrt(predicted), rel=0.6)
    details = ODELikelihood(RK4(6), HutchinsonDivergence(4)).details(found[0], unit_of(2, None))
    assert details["stderr_divergence"] == pytest.approx(found[0].total.mc_stderr)


def test_divergence_error_of_one_probe_is_unknown():
    found = measured(ODELikelihood(RK4(4), HutchinsonDivergence(1)), MIXTURE, randn(4, 2))
    assert found.total.mc_stderr is None


def test_solver_difference_is_that_of_half_the_steps():
    x0, denoise = 0.5 * randn(6, 1), gaussian_denoiser((1,), 0.5, FixedLarge())
    fine, coarse = (measured(ODELikelihood(RK4(n), ExactDivergence()), denoise, x0) for n in (8, 4))
    difference = fine.details["solver_difference"]
    assert difference.mean == pytest.approx(fine.total.mean - coarse.total.mean)
    likelihood = ODELikelihood(RK4(8), ExactDivergence(), max_solver_error=1e-9)
    with pytest.raises(ValueError, match="RK4, 8 steps and RK4, 4 steps differ by"):
        likelihood.check_accuracy(fine, unit_of(1, None))
    ODELikelihood(RK4(8), ExactDivergence(), max_solver_error=10.0).check_accuracy(fine, unit_of(1, None))


@pytest.mark.slow
def test_more_dequantization_samples_lower_the_estimate():
    levels, schedule = 5, LinearLogSNRSchedule(100, logsnr_max=3.0, logsnr_min=-20.0)
    bound = VariationalBound(full_chain(schedule), DiscretizedGaussian(levels))
    x0 = torch.linspace(-1.0, 1.0, levels, dtype=torch.float64)[:, None].repeat(80, 2)
    for dequantization in (UniformDequantization(levels), DecoderDequantization()):
        one, many = (
            measured(ODELikelihood(RK4(8), ExactDivergence(), dequantization, n), MIXTURE, x0, bound, 400)
            for n in (1, 16)
        )
        assert one.total.mc_stderr is None
        assert many.total.mc_stderr > 0
        difference = many.examples - one.examples
        assert difference.mean() < -3 * difference.std() / math.sqrt(len(difference))


def test_model_that_has_diverged_is_refused():
    likelihood = ImportanceWeightedLikelihood(importance_samples=2)
    bound = VariationalBound(Chain(CosineSchedule(3)), GaussianDecoder())
    found = measured(likelihood, gaussian_denoiser((1,), math.nan, FixedSmall()), randn(3, 1), bound)
    with pytest.raises(ValueError, match="the model has diverged"):
        likelihood.check_accuracy(found, unit_of(1, None))


def test_one_is_named_in_the_singular():
    one = [
        ImportanceWeightedLikelihood(1).label,
        Sandwich(1).label,
        str(HutchinsonDivergence(1)),
        str(RK4(1)),
    ]
    assert [text.split()[-1] for text in one] == ["trajectory", "trajectory", "probe", "step"]
    assert ImportanceWeightedLikelihood(2).label.endswith("2 trajectories")


@pytest.mark.parametrize("likelihood", [ImportanceWeightedLikelihood(), Sandwich()])
def test_continuous_time_needs_steps_for_trajectories(likelihood):
    with pytest.raises(ValueError, match="steps=100"):
        likelihood.check_chain(full_chain(LinearLogSNRSchedule(None)))


def test_sandwich_does_not_depend_on_the_values_of_the_data():
    """They give the number, the shape and the noise of the samples."""
    bound, likelihood = VariationalBound(Chain(CosineSchedule(4)), GaussianDecoder()), Sandwich(2)
    one, two = (measured(likelihood, MIXTURE, x0, bound) for x0 in (randn(30, 2), 7.0 + randn(30, 2)))
    torch.testing.assert_close(one.examples, two.examples)
    assert one.num_evaluations == 30 * 3 * 4
    gap, unit = one.details["gap"], unit_of(2, None)
    assert gap.mean == pytest.approx(one.total.mean - one.details["lower"].mean)
    assert gap.stderr < 0.9 * math.hypot(one.total.stderr, one.details["lower"].stderr)  # paired
    assert likelihood.details(one, unit)["gap_stderr"] == gap.stderr
    for conditional, expected in ((False, set()), (True, {"data"})):
        ledger = {"conditional": conditional, "data": "Digits"}
        assert likelihood.ledger(ledger, bound).keys() & {"data"} == expected


@pytest.mark.parametrize("trajectories", [1, 4])
def test_sandwich_contains_the_density_of_an_exact_chain(trajectories):
    """Data N(0, 1): with the exact denoiser and fixed_large both bounds are -log p."""
    bound = VariationalBound(Chain(CosineSchedule(4)), GaussianDecoder())
    denoise = gaussian_denoiser((2,), 1.0, FixedLarge())
    found = measured(Sandwich(trajectories), denoise, randn(400, 2), bound)
    assert found.details["gap"].mean == pytest.approx(0.0, abs=1e-9)
    entropy = 2 * Normal(0.0, 1.0).entropy().item()
    assert abs(found.total.mean - entropy) < 4 * found.total.stderr


# ------------------------------------------------------------------ adaptive solver


@pytest.fixture
def adaptive():
    pytest.importorskip("torchode")
    from nelbo.evaluation.likelihoods.solvers import AdaptiveSolver

    return AdaptiveSolver


@pytest.mark.slow
def test_adaptive_solver_reaches_the_density_of_a_mixture(adaptive):
    x0 = randn(6, 2)
    tight, loose = adaptive(1e-6, 1e-6), adaptive(1e-3, 1e-3)
    exact = measured(ODELikelihood(RK4(120), ExactDivergence()), MIXTURE, x0)
    found, rough = (measured(ODELikelihood(s, ExactDivergence()), MIXTURE, x0) for s in (tight, loose))
    torch.testing.assert_close(found.examples, exact.examples, rtol=0, atol=1e-4)
    assert rough.num_evaluations < found.num_evaluations
    assert abs(found.details["solver_difference"].mean) < abs(rough.details["solver_difference"].mean)


@pytest.mark.slow
def test_adaptive_solution_of_an_example_does_not_depend_on_the_others(adaptive):
    x0 = torch.cat([randn(3, 2), torch.tensor([[4.0, 4.0]])])
    likelihood = ODELikelihood(adaptive(1e-3, 1e-3), ExactDivergence())
    together, alone = (measured(likelihood, MIXTURE, x0, size=size).examples for size in (4, 1))
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_adaptive_evaluations_of_an_example_do_not_depend_on_the_others(adaptive):
    """The far example needs more steps than the others."""
    x0 = torch.cat([randn(3, 2), torch.tensor([[4.0, 4.0]])])
    flow = ProbabilityFlow(MIXTURE, SCHEDULE)
    solver, divergence, no_probes = adaptive(1e-3, 1e-3), ExactDivergence(), torch.zeros(0)

    def evaluations(x):
        return flow.log_prob(x, solver, divergence, no_probes).evaluations.tolist()

    together = evaluations(x0)
    assert len(set(together)) > 1
    assert together == [evaluations(one[None])[0] for one in x0]


def test_failure_in_another_process_is_a_failure_here():
    def all_reduce_sum(sums):
        if len(sums) == 1:
            sums += 1.0

    with pytest.raises(LikelihoodError, match="failed in another process"):
        measure_likelihood(
            ImportanceWeightedLikelihood(2),
            VariationalBound(Chain(CosineSchedule(2)), GaussianDecoder()),
            MIXTURE,
            batches(randn(4, 2), 4),
            4,
            all_reduce_sum=all_reduce_sum,
        )


def test_adaptive_solver_that_does_not_arrive_is_refused(adaptive):
    likelihood = ODELikelihood(adaptive(1e-9, 1e-9, max_steps=5), ExactDivergence())
    with pytest.raises(ValueError, match="4 of 4 examples did not reach the noisy end"):
        measured(likelihood, MIXTURE, randn(4, 2))


def test_adaptive_solver_names_the_missing_library(monkeypatch):
    import sys

    from nelbo.evaluation.likelihoods.solvers import AdaptiveSolver

    monkeypatch.setitem(sys.modules, "torchode", None)
    with pytest.raises(ValueError, match=r"pip install 'nelbo\[ode\]'"):
        AdaptiveSolver()
