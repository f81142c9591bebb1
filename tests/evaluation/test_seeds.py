"""Averages over seeds, compared with their closed forms."""

import math

import numpy as np
import pytest
import torch

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.seeds import SeedEstimate


def test_three_seeds_have_the_closed_form_of_mean_spread_and_errors():
    found = SeedEstimate.of([Estimate(1.0, 0.3), Estimate(2.0, 0.4), Estimate(6.0, 1.2)])
    assert found.count == 3
    assert found.mean == pytest.approx(3.0)
    assert found.spread == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert found.seed_stderr == pytest.approx(math.sqrt(7 / 3))
    assert found.stderr == pytest.approx(math.hypot(found.seed_stderr, found.within))
    assert found.within == pytest.approx(math.sqrt((0.09 + 0.16 + 1.44) / 3))


def test_one_seed_has_no_spread_and_keeps_its_own_error():
    found = SeedEstimate.of([Estimate(2.0, 0.25)])
    assert (found.mean, found.within) == (2.0, 0.25)
    assert math.isnan(found.spread)
    assert found.stderr == 0.25


def test_an_unknown_error_of_one_run_is_not_ignored():
    assert math.isnan(SeedEstimate.of([Estimate(1.0, 0.1), Estimate(2.0, math.nan)]).within)


def test_the_difference_of_independent_groups_adds_their_squared_errors():
    first = SeedEstimate.of([Estimate(x, 0.1) for x in (1.0, 2.0, 3.0)])
    second = SeedEstimate.of([Estimate(x, 0.2) for x in (4.0, 8.0)])
    found = second.minus(first)
    assert found.mean == pytest.approx(4.0)
    assert found.seed_stderr == pytest.approx(math.sqrt(1 / 3 + 8 / 2))
    assert found.within == pytest.approx(math.hypot(0.1, 0.2))


def test_two_standard_errors_over_eight_seeds_cover_the_true_mean_as_students_t_says():
    """P(|t_7| < 2) = 0.9144."""
    rng = np.random.default_rng(0)
    runs = rng.normal(5.0, 0.3, (4000, 8))
    found = [SeedEstimate.of([Estimate(x, 0.0) for x in row]) for row in runs]
    covered = np.mean([abs(one.mean - 5.0) < 2 * one.stderr for one in found])
    assert covered == pytest.approx(0.9144, abs=4 * math.sqrt(0.9144 * 0.0856 / 4000))


def test_the_error_covers_seeds_and_the_test_examples_that_all_seeds_share():
    """Values of 5 seeds on the same 200 examples: x_ij = seed effect i + example effect j + noise."""
    rng = np.random.default_rng(0)
    seeds, examples = rng.normal(0.0, 0.02, (2000, 5, 1)), rng.normal(0.0, 1.0, (2000, 1, 200))
    x = torch.from_numpy(5.0 + seeds + examples + rng.normal(0.0, 0.1, (2000, 5, 200)))
    found = [SeedEstimate.of([Estimate.of(run) for run in runs]) for runs in x]
    covered = np.mean([abs(one.mean - 5.0) < 2 * one.stderr for one in found])
    assert 0.93 < covered < 0.98
    assert np.mean([abs(one.mean - 5.0) < 2 * one.seed_stderr for one in found]) < 0.4  # over seeds alone
