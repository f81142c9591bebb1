"""Estimators against the closed form of Gaussian data, whose denoiser is exact."""

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.process import posterior_coefficients
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall
from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import BoundEstimator, FullEstimator, StratifiedEstimator
from nelbo.evaluation.measure import Measurement, measure
from nelbo.evaluation.units import unit_of

DIMS, STD, N, T = 3, 0.5, 2000, 12
CONF = Path(__file__).parents[2] / "conf/estimator"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if "_target_" in OmegaConf.load(path))
SMALL = {
    "stratified": {"evaluations_per_example": 5},
    "importance": {"target_stderr": 0.05, "evaluations_per_round": 5, "max_evaluations": 20_000},
}


def closed_form(chain, variance) -> torch.Tensor:
    """Expectation of L_0, L_2, ..., L_K and L_T in nats, (K + 1,), written out from the definitions."""
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    log_var, mse = variance.log_var(step, None), posterior_variance(step.t, STD)
    r = log_var - step.log_beta_tilde
    _, from_x0 = posterior_coefficients(step)
    denoising = 0.5 * (r + torch.exp(-r) - 1 + from_x0**2 * mse * torch.exp(-log_var))
    reconstruction = 0.5 * (math.log(2 * math.pi) + log_var + mse * torch.exp(-log_var))
    end = chain.noisiest
    noise = 1 - end.alpha_bar
    prior = 0.5 * (noise + end.alpha_bar * STD**2 - 1 - noise.log())
    return DIMS * torch.cat([reconstruction[:1], denoising[1:], prior[None]])


def make(name: str, **options) -> BoundEstimator:
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"), **(SMALL.get(name, {}) | options))


def measured(estimator, variance, batch_size=N, T=T, n=N, x0=None, others=()) -> list[Measurement]:
    """All rounds through n examples, with several variances."""
    if x0 is None:
        x0 = STD * torch.randn(n, DIMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = VariationalBound(Chain(CosineSchedule(T)), GaussianDecoder())
    batches = [Batch(x0[index], None, index) for index in torch.arange(n).split(batch_size)]
    return measure(
        estimator,
        [BoundVariant(bound), *(BoundVariant(bound, other) for other in others)],
        gaussian_denoiser((DIMS,), STD, variance),
        batches,
        n,
        unit_of(DIMS, None),
    )


both = pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=["large", "small"])
every = pytest.mark.parametrize("name", NAMES)


@every
@both
def test_parts_and_terms_are_the_closed_form_within_their_errors(name, variance):
    estimator = make(name)
    [result] = measured(estimator, variance)
    expected = closed_form(Chain(CosineSchedule(T)), variance)
    estimate, table = result.estimate, result.steps
    parts = {
        "reconstruction": expected[0],
        "denoising": expected[1:-1].sum(),
        "prior": expected[-1],
        "total": expected.sum(),
    }
    for part_name, value in parts.items():
        part = getattr(estimate, part_name)
        assert abs(part.mean - value) < 3 * part.stderr, part_name
    gap, error = (table.mean - expected[:-1]).abs(), table.stderr
    assert (gap < 4 * error + 1e-12)[table.count > 1].all()
    assert estimate.num_examples == N
    assert estimate.num_evaluations >= int(table.count.sum())  # a pilot is not in the table


@every
@both
def test_variants_do_not_change_each_other(name, variance):
    """They share network evaluations only."""
    [alone] = measured(make(name), variance, n=50)
    other = FixedLarge() if isinstance(variance, FixedSmall) else FixedSmall()
    first, second = measured(make(name), variance, n=50, others=[other])
    assert_same(first, alone)
    assert torch.equal(first.examples, alone.examples)
    expected = closed_form(Chain(CosineSchedule(T)), other)
    assert abs(second.estimate.total.mean - float(expected.sum())) < 4 * second.estimate.total.stderr
    assert second.estimate.prior == first.estimate.prior
    if name != "importance":  # which draws its timesteps after what it has seen of the first
        [as_first] = measured(make(name), other, n=50)
        torch.testing.assert_close(second.examples, as_first.examples, rtol=1e-12, atol=0)


@every
def test_contributions_of_steps_and_of_examples_add_up_to_the_bound(name):
    [result] = measured(make(name), FixedLarge(), n=50)
    estimate = result.estimate
    steps = float(result.contributions.sum()) + estimate.prior.mean
    assert steps == pytest.approx(estimate.total.mean, rel=1e-12)
    assert float(result.contributions[0]) == pytest.approx(estimate.reconstruction.mean, rel=1e-12)
    means = dict(zip(result.columns, result.examples.mean(0).tolist(), strict=True))
    assert means["L_0"] == pytest.approx(estimate.reconstruction.mean, rel=1e-12)
    assert means["t_2_10"] + means["t_11_100"] == pytest.approx(estimate.denoising.mean, rel=1e-12)
    assert means["L_T"] == pytest.approx(estimate.prior.mean, rel=1e-12)
    of_examples = result.examples.sum(1).std().item() / 50**0.5
    assert estimate.total.stderr == pytest.approx(of_examples, rel=1e-9)


@pytest.mark.slow
@every
def test_stderr_is_the_scatter_over_seeds_and_data(name):
    """Over new data and new seeds, the totals scatter as their standard error says."""
    n, runs, totals, errors = 100, 24, [], []
    for seed in range(runs):
        x0 = STD * torch.randn(n, DIMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        [result] = measured(make(name, seed=seed), FixedLarge(), n=n, x0=x0)
        totals.append(result.estimate.total.mean)
        errors.append(result.estimate.total.stderr)
    scatter, error = torch.tensor(totals).std().item(), sum(errors) / runs
    assert 0.5 * error < scatter < 1.6 * error


@every
def test_mc_stderr_is_the_scatter_over_seeds_of_the_same_examples(name):
    """On a chain whose terms vary within each range."""
    options = {"evaluations_per_example": 8} if name == "stratified" else {}
    options = {"target_stderr": 1e3, "evaluations_per_round": 8} if name == "importance" else options
    results = [measured(make(name, seed=seed, **options), FixedSmall(), n=60, T=40)[0] for seed in range(24)]
    totals = torch.tensor([result.estimate.total.mean for result in results])
    reported = [result.estimate.total.mc_stderr for result in results]
    metrics = unit_of(DIMS, None).metrics("test", results[0].estimate)
    assert 0.6 < totals.std().item() / torch.tensor(reported).mean().item() < 1.5
    assert metrics["test/nelbo_stderr_monte_carlo"] == reported[0]


def assert_same(first: Measurement, second: Measurement) -> None:
    torch.testing.assert_close(first.examples, second.examples, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first.steps.sum, second.steps.sum, rtol=1e-12, atol=1e-12)
    assert torch.equal(first.steps.count, second.steps.count)
    for part in ("total", "reconstruction", "denoising", "prior"):
        one, other = getattr(first.estimate, part), getattr(second.estimate, part)
        assert (one.mean, one.stderr) == pytest.approx((other.mean, other.stderr), rel=1e-9)
        assert one.mc_stderr == (other.mc_stderr and pytest.approx(other.mc_stderr, rel=1e-9))


@pytest.mark.slow
@every
@pytest.mark.parametrize("T", [2, 4, 12])
def test_mc_stderr_is_the_scatter_of_estimates_of_one_example(name, T):
    """On short chains too, whose terms differ most; over 150 seeds, of the same examples.

    Those of `stratified` also vary with the timesteps of the example: its means over examples are taken.
    """
    n, totals, mc_stderrs = 20, [], []
    for seed in range(150):
        one_round = {"target_stderr": 1e3} if name == "importance" else {}
        [result] = measured(make(name, seed=seed, **one_round), FixedSmall(), n=n, T=T)
        totals.append(result.examples.sum(1))
        mc_stderrs.append(result.estimate.total.mc_stderr)
    values = torch.stack(totals)
    reported = (torch.tensor(mc_stderrs) ** 2).mean().item()
    if name == "stratified":
        assert 0.75 < reported / values.mean(1).var().item() < 1.5
    else:
        assert reported == pytest.approx(values.var(0).mean().item() / n, rel=0.2)


@every
@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_does_not_matter(name, batch_size):
    [whole] = measured(make(name), FixedLarge(), n=20)
    [pieces] = measured(make(name), FixedLarge(), n=20, batch_size=batch_size)
    assert_same(pieces, whole)


@every
def test_the_number_of_pairs_in_a_call_does_not_matter(name):
    first, second = (make(name), make(name))
    second.pairs_per_call = 5
    assert_same(*(measured(estimator, FixedLarge(), n=20)[0] for estimator in (first, second)))


@every
def test_another_seed_is_another_measurement(name):
    first, second = (measured(make(name, seed=seed), FixedLarge(), n=20)[0] for seed in (0, 1))
    assert first.estimate.total.mean != second.estimate.total.mean


@every
def test_a_chain_of_one_step_has_no_denoising_term(name):
    [result] = measured(make(name), FixedLarge(), T=1, n=40)
    assert result.estimate.denoising.mean == 0.0
    expected = closed_form(Chain(CosineSchedule(1)), FixedLarge())
    assert abs(result.estimate.total.mean - float(expected.sum())) < 4 * result.estimate.total.stderr


def test_full_is_the_direct_sum_of_all_terms():
    variance = FixedLarge()
    [result] = measured(FullEstimator(), variance, n=50)
    x0 = STD * torch.randn(50, DIMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = VariationalBound(Chain(CosineSchedule(T)), GaussianDecoder())
    generator = torch.Generator().manual_seed(1)
    terms = bound.terms(
        gaussian_denoiser((DIMS,), STD, variance),
        x0,
        lambda _: torch.randn(x0.shape, generator=generator, dtype=torch.float64),
    )
    estimate, table = result.estimate, result.steps
    # the prior has no noise in it; the rest is another draw of the same
    assert estimate.prior.mean == pytest.approx(terms.prior.mean().item(), rel=1e-12)
    gap = estimate.total.mean - terms.total.mean().item()
    assert abs(gap) < 4 * math.sqrt(2) * estimate.total.stderr
    assert (table.count[1:] >= 50).all()
    assert table.count.sum() == 50 * (T + 1 + 8)  # L_0 twice, and eight of the terms


def test_evaluations_are_as_many_as_configured():
    for estimator, per_example in ((FullEstimator(), T + 1 + 8), (StratifiedEstimator(5), 5)):
        for others in ([], [FixedSmall()]):
            estimate = measured(estimator, FixedLarge(), n=10, others=others)[0].estimate
            assert estimate.num_examples == 10
            assert estimate.num_evaluations == 10 * per_example


def test_stratified_has_no_monte_carlo_error_while_examples_are_missing():
    """The timesteps cover the chain evenly over the whole data set only."""
    n, chain, estimator = 20, Chain(CosineSchedule(T)), StratifiedEstimator(8)
    x0 = STD * torch.randn(n, DIMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    accumulator = BoundAccumulator(T, num_examples=n, num_draws=estimator.stored_draws(chain))
    variants = [BoundVariant(VariationalBound(chain, GaussianDecoder()))]
    known = []
    for index in torch.arange(n).split(10):
        denoise = gaussian_denoiser((DIMS,), STD, FixedLarge())
        estimator.measure([accumulator], variants, denoise, x0[index], index, None, n)
        known.append(accumulator.estimate().total.mc_stderr is not None)
    assert known == [False, True]


def test_stratified_with_one_draw_has_an_error_without_parts():
    total = measured(StratifiedEstimator(3), FixedLarge(), n=40)[0].estimate.total
    assert total.mc_stderr is None
    assert 0.0 < total.stderr < math.inf


@pytest.mark.parametrize("evaluations", [3, 4, 8])
def test_stratified_timesteps_cover_the_chain_evenly(evaluations):
    K, n = 31, 100
    assignment = StratifiedEstimator(evaluations).assign(torch.arange(n), n, Chain(CosineSchedule(K)))
    drawn = assignment.steps.flatten()
    counts = torch.bincount(drawn, minlength=K + 1)[2:]
    expected = len(drawn) / (K - 1)
    # a range of the chain and a step may overlap in part, hence a little slack on both sides
    assert (counts - expected).abs().max() <= 2
    # the weights of one example's draws add up to the number of terms
    weights = assignment.weights.sum(1)
    assert weights.tolist() == pytest.approx([float(K - 1)] * n)
