"""Costs of steps add up to the bound of every chain, and the best chain is found."""

import functools
import itertools

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.exact import posterior_variance
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.spacings import Optimal
from nelbo.diffusion.spacings.optimal import best_chain
from nelbo.diffusion.step_cost_table import StepCostTable
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange

STD, RAW = 0.5, 0.4
VARIANCES = {
    "large": FixedLarge(),
    "large, next": FixedLarge("beta_tilde"),
    "small, next": FixedSmall("beta_tilde"),
    "learned": LearnedRange(),
    "learned, next": LearnedRange("beta_tilde"),
}
every_variance = pytest.mark.parametrize("name", VARIANCES)


def exact_denoise(variance):
    """x0_hat is off by the root of the posterior variance, so that each term equals its expectation."""

    def denoise(xt, level, cond=None):
        gap = posterior_variance(level, STD).sqrt()[:, None]
        return Prediction(STD - gap, torch.zeros_like(gap), variance, torch.full_like(gap, RAW))

    return denoise


def expected_terms(chain, variance):
    """All terms of N(0, STD^2) data under the exact denoiser, one dimension."""
    x0 = torch.full((1, 1), STD, dtype=torch.float64)
    bound = VariationalBound(chain, GaussianDecoder())
    return bound.terms(exact_denoise(variance), x0, lambda i: torch.zeros_like(x0))


@functools.cache
def exact_costs(make_schedule, T, name):
    """The table, entry by entry from chains of one and of two levels."""
    schedule, variance = make_schedule(T), VARIANCES[name]
    first = torch.full((T, T + 1), torch.inf, dtype=torch.float64)
    step, prior = first[:, :T].clone(), torch.zeros(T, dtype=torch.float64)
    for j in range(T):
        alone = expected_terms(Chain(schedule, torch.tensor([j + 1])), variance)
        first[j, T], prior[j] = alone.reconstruction, alone.prior
        for i in range(j):
            pair = expected_terms(Chain(schedule, torch.tensor([i + 1, j + 1])), variance)
            first[i, j], step[i, j] = pair.reconstruction, pair.denoising
    return StepCostTable(torch.arange(1, T + 1), first, step, prior)


def lowest(costs, K):
    """The lowest total of all chains of K levels, by enumeration."""
    T = len(costs.timesteps)
    return min(costs.total(torch.tensor(t)) for t in itertools.combinations(range(1, T + 1), K))


# ------------------------------------------------------------------ totals


@every_variance
@pytest.mark.parametrize(
    "timesteps", [list(range(1, 21)), [1, 2, 3], [2, 9, 20], [4, 19], [5], [20], [1]], ids=str
)
def test_the_total_of_a_chain_is_its_bound(name, timesteps):
    chain = Chain(CosineSchedule(20), torch.tensor(timesteps))
    total = exact_costs(CosineSchedule, 20, name).total(chain.t())
    assert total == pytest.approx(expected_terms(chain, VARIANCES[name]).total.item(), rel=1e-12)


def test_the_total_equals_the_sum_by_hand(random_costs):
    c = random_costs(6)
    by_hand = c.first[1, 3] + c.step[1, 3] + c.step[3, 4] + c.prior[4]
    assert c.total(torch.tensor([2, 4, 5])) == pytest.approx(by_hand.item(), rel=1e-15)
    assert c.total(torch.tensor([3])) == pytest.approx((c.first[2, 6] + c.prior[2]).item(), rel=1e-15)


# ------------------------------------------------------------------ the best chain


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("T", [1, 2, 3, 6, 12])
def test_optimal_is_the_best_of_all_chains_for_random_costs(T, seed, random_costs):
    costs = random_costs(T, seed)
    for K in range(1, T + 1):
        best = best_chain(costs, K)
        assert len(best) == K
        assert costs.total(best) == pytest.approx(lowest(costs, K), rel=1e-12)


@every_variance
def test_optimal_is_the_best_of_all_chains_of_a_bound(name):
    costs = exact_costs(CosineSchedule, 12, name)
    for K in range(1, 13):
        assert costs.total(best_chain(costs, K)) == pytest.approx(lowest(costs, K), rel=1e-12)


def test_optimal_considers_the_second_level_for_the_first_cost():
    """L_0 is expensive except for one second level, which is not on the best path without it."""
    expensive = torch.full((4, 5), 100.0, dtype=torch.float64)
    expensive[0, 2] = 0.0
    impossible = torch.ones(4, 5, dtype=torch.bool).tril()
    step = torch.ones(4, 4, dtype=torch.float64)
    step[0, 2] = 5.0
    costs = StepCostTable(
        timesteps=torch.arange(1, 5),
        first=expensive.masked_fill(impossible, torch.inf),
        step=step.masked_fill(impossible[:, :4], torch.inf),
        prior=torch.tensor([9.0, 9.0, 9.0, 0.0], dtype=torch.float64),
    )
    assert best_chain(costs, 3).tolist() == [1, 3, 4]


@pytest.mark.slow
@every_variance
@pytest.mark.parametrize("make", [CosineSchedule, LinearSchedule])
def test_optimal_is_never_worse_than_another_spacing(make, name, make_spacing):
    schedule = make(30)
    costs = exact_costs(make, 30, name)
    other, optimal = make_spacing(costs), Optimal(costs)
    for K in (1, 2, 3, 8, 20, 29, 30):
        ours, theirs = (costs.total(s.chain(schedule, K).t()) for s in (optimal, other))
        assert ours <= theirs + 1e-12
