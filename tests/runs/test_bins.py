"""Bins, running sums, rate and distortion, gaps: against the draws themselves."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nelbo.evaluation.step_table import StepTable
from nelbo.runs.bins import (
    SINGLE_STEPS,
    Bins,
    binned,
    from_data,
    from_noise,
    gap,
    log_bins,
    rate_and_distortion,
    relative_gap,
)


def terms_of(
    draws: list[np.ndarray], errors: list[np.ndarray] | None = None, t: np.ndarray | None = None
) -> StepTable:
    errors = errors or [np.full(len(x), np.nan) for x in draws]
    return StepTable(
        t=torch.arange(1, len(draws) + 1) if t is None else torch.from_numpy(t),
        count=torch.tensor([len(x) for x in draws]).double(),
        sum=torch.tensor([x.sum() for x in draws]).double(),
        sum_of_squares=torch.tensor([(x**2).sum() for x in draws]).double(),
        sum_of_errors=torch.tensor([e.sum() for e in errors]).double(),
        sum_of_interpolations=torch.tensor([0.25 * len(x) for x in draws]).double(),
    )


def some_draws(counts: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.gamma(2.0, 1.0 / t, n) for t, n in enumerate(counts, start=1)]


def bins_of_one(T: int) -> Bins:
    return bins_from(list(range(1, T + 1)), T)


def bins_from(first: list[int], last: int, strata: list[int] | None = None) -> Bins:
    """On a full chain of so many steps."""
    ends = np.array([*first[1:], last + 1]) - 1
    return Bins(np.arange(1, last + 1), np.array(first), ends, None if strata is None else np.array(strata))


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=300),
    per_decade=st.integers(1, 12),
    at_least=st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_bins_cover_the_chain_and_have_the_draws_they_need(counts, per_decade, at_least):
    terms = terms_of(some_draws(counts))
    bins = log_bins([terms], per_decade, at_least)
    assert bins.first[0] == bins.last[0] == 1
    assert bins.last[-1] == len(counts)
    assert (bins.first[1:] == bins.last[:-1] + 1).all()
    assert (bins.size >= 1).all()
    assert set(bins.first) <= set(bins.strata)
    drawn = binned(terms, bins).count[1:]
    assert len(drawn) <= 1 or (drawn >= at_least).all()


def test_bins_of_several_tables_have_the_draws_in_each():
    rng = np.random.default_rng(0)
    tables = [terms_of(some_draws(rng.poisson(rate, 500).tolist())) for rate in (0.5, 3)]
    bins = log_bins(tables, at_least=10)
    assert len(bins.size) > 5
    for terms in tables:
        assert (binned(terms, bins).count[1:] >= 10).all()


def test_a_bin_is_the_mean_of_its_draws_with_their_standard_error():
    counts = [40, 0, 3, 1, 25, 7, 0, 2, 9, 30]
    draws = some_draws(counts)
    errors = some_draws(counts, seed=1)
    bins = bins_from([1, 2, 4, 7], 10)
    found = binned(terms_of(draws, errors), bins)
    for i, (low, high) in enumerate(zip(bins.first, bins.last, strict=True)):
        inside = np.concatenate(draws[low - 1 : high])
        assert found.count[i] == len(inside)
        assert found.mean[i] == pytest.approx(inside.mean())
        assert found.stderr[i] == pytest.approx(inside.std(ddof=1) / np.sqrt(len(inside)))
        assert found.mse[i] == pytest.approx(np.concatenate(errors[low - 1 : high]).mean())


def test_a_t_that_was_drawn_once_does_not_count_as_much_as_one_drawn_often():
    terms = terms_of([np.ones(5), np.full(99, 1.0), np.full(1, 101.0)])
    found = binned(terms, bins_from([1, 2], 3))
    assert found.mean[1] == pytest.approx(2.0)  # the mean of the two means is 51


def test_a_bin_averages_its_strata_by_how_many_t_they_have():
    counts = [5, 4, 6, 30, 2, 9, 3]
    draws, errors = some_draws(counts), some_draws(counts, seed=1)
    found = binned(terms_of(draws, errors), bins_from([1, 2], 7, [1, 2, 3, 5]))
    strata = [np.concatenate(draws[a - 1 : b]) for a, b in ((2, 2), (3, 4), (5, 7))]
    size = np.array([1, 2, 3])
    assert found.count[1] == sum(counts[1:])
    assert found.mean[1] == pytest.approx(np.average([x.mean() for x in strata], weights=size))
    se = np.array([x.std(ddof=1) / np.sqrt(len(x)) for x in strata])
    assert found.stderr[1] == pytest.approx(np.linalg.norm(size * se) / 6)
    mse = [np.concatenate(errors[a - 1 : b]).mean() for a, b in ((2, 2), (3, 4), (5, 7))]
    assert found.mse[1] == pytest.approx(np.average(mse, weights=size))


def test_drawing_t_unevenly_does_not_tilt_a_bin():
    """Draws in proportion to L_t, as importance sampling makes them, of terms without any noise."""
    t = np.arange(1, 1001)
    level = 1.0 / t
    counts = np.maximum(1, (20_000 * level / level.sum()).round().astype(int))
    terms = terms_of([np.full(n, value) for n, value in zip(counts, level, strict=True)])
    bins = log_bins([terms], per_decade=4)
    for low, high, mean in zip(bins.first, bins.last, binned(terms, bins).mean, strict=True):
        assert mean == pytest.approx(level[low - 1 : high].mean(), rel=1e-3)
    pooled = binned(terms, Bins(bins.t, bins.first, bins.last))
    assert pooled.mean[-1] > 1.01 * level[bins.first[-1] - 1 :].mean()


def test_the_error_of_a_single_draw_is_not_known_and_nothing_drawn_is_not_a_number():
    found = binned(terms_of([np.ones(1), np.ones(0)]), bins_of_one(2))
    assert np.isnan(found.stderr).all()
    assert np.isnan(found.mean[1])


def test_running_sums_of_single_steps():
    draws = some_draws([20] * 30)
    table = binned(terms_of(draws), bins_of_one(30))
    mean = np.array([x.mean() for x in draws])
    variance = np.array([x.var(ddof=1) / len(x) for x in draws])
    down, up = from_noise(table, prior=0.5), from_data(table)
    for i in range(30):
        assert down.value[i] == pytest.approx(0.5 + mean[i:].sum())
        assert down.error[i] == pytest.approx(np.sqrt(variance[i:].sum()))
        assert up.value[i] == pytest.approx(mean[: i + 1].sum())
        assert up.error[i] == pytest.approx(np.sqrt(variance[: i + 1].sum()))


def test_a_bin_adds_its_mean_as_often_as_it_has_steps():
    rng = np.random.default_rng(0)
    draws = some_draws(rng.integers(1, 5, 200).tolist())
    terms = terms_of(draws)
    bins = log_bins([terms])
    down, up = from_noise(binned(terms, bins), prior=0.25), from_data(binned(terms, bins))
    expected = 0.25 + sum(
        (high - low) * np.concatenate(draws[low - 1 : high - 1]).mean()
        for low, high in pairwise([*bins.strata, 201])
    )
    assert (down.t[0], down.value[0]) == (1, pytest.approx(expected))
    assert (up.t[-1], up.value[-1]) == (200, pytest.approx(expected - 0.25))
    assert (
        np.array([from_noise(binned(terms, bins), 0.25).t[0], from_data(binned(terms, bins)).t[-1]])
        == [1, 200]
    ).all()


def test_rate_is_what_was_sent_before_the_receiver_knows_xt():
    draws = some_draws([10] * 20)
    errors = some_draws([10] * 20, seed=1)
    rate, distortion = rate_and_distortion(binned(terms_of(draws, errors), bins_of_one(20)), prior=0.5)
    mean = np.array([x.mean() for x in draws])
    for i in range(20):
        assert rate[i] == pytest.approx(0.5 + mean[i + 1 :].sum())  # without its own term
        assert distortion[i] == pytest.approx(np.sqrt(errors[i].mean()))
    assert rate[-1] == pytest.approx(0.5)  # x_T costs the prior alone


def test_rate_in_a_bin_is_the_average_over_its_steps():
    level = 0.3
    terms = terms_of([np.full(4, level) for _ in range(10)], [np.ones(4) for _ in range(10)])
    bins = bins_from([1, 2, 5], 10)
    rate, _ = rate_and_distortion(binned(terms, bins), prior=0.0)
    each = np.array([level * (10 - t) for t in range(1, 11)])
    assert rate == pytest.approx([each[0], each[1:4].mean(), each[4:].mean()])


def test_gaps_and_their_errors():
    held_out, train = some_draws([50] * 12), some_draws([80] * 12, seed=1)
    bins = bins_from([1, 2, 6], 12)
    tables = binned(terms_of(held_out), bins), binned(terms_of(train), bins)
    added, relative = gap(*tables), relative_gap(*tables)
    for i, (low, high) in enumerate(zip(bins.first, bins.last, strict=True)):
        a, b = (np.concatenate(draws[low - 1 : high]) for draws in (held_out, train))
        se = [x.std(ddof=1) / np.sqrt(len(x)) for x in (a, b)]
        size = high - low + 1
        assert added.value[i] == pytest.approx(size * (a.mean() - b.mean()))
        assert added.error[i] == pytest.approx(size * np.hypot(*se))
        assert relative.value[i] == pytest.approx(a.mean() / b.mean() - 1)
        # the delta method, written out
        expected = np.hypot(se[0] / b.mean(), a.mean() * se[1] / b.mean() ** 2)
        assert relative.error[i] == pytest.approx(expected)


def test_errors_of_bins_are_those_of_repeated_measurements():
    """Over many measurements of the same bound, the running sum scatters as its error bar says."""
    rng = np.random.default_rng(0)
    mean = 1.0 / np.arange(1, 101)
    totals, errors = [], []
    for _ in range(300):
        counts = np.append(20, rng.poisson(5, 99))
        terms = terms_of([rng.gamma(2.0, m / 2.0, n) for m, n in zip(mean, counts, strict=True)])
        curve = from_noise(binned(terms, log_bins([terms])), prior=0.0)
        totals.append(curve.value[0])
        errors.append(curve.error[0])
    assert np.mean(totals) == pytest.approx(mean.sum(), abs=4 * np.std(totals) / np.sqrt(len(totals)))
    assert np.mean(errors) == pytest.approx(np.std(totals), rel=0.25)


@given(
    t=st.lists(st.integers(1, 4000), min_size=1, max_size=300, unique=True).map(sorted),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_a_shorter_chain_adds_up_over_its_steps_and_not_over_all_t(t, seed):
    rng = np.random.default_rng(seed)
    mean = rng.gamma(2.0, 1.0, len(t))
    terms = terms_of([np.full(9, level) for level in mean], t=np.array(t))
    table = binned(terms, log_bins([terms]))
    assert table.bins.size.sum() == len(t)
    assert table.bins.first_t[0] == table.bins.last_t[0] == t[0]
    assert table.bins.last_t[-1] == t[-1]
    down, up = from_noise(table, prior=0.5), from_data(table)
    assert (down.t[0], up.t[-1]) == (t[0], t[-1])
    if len(t) <= SINGLE_STEPS:  # then every bin is one step, and the mean of steps that differ is not taken
        assert down.value[0] == pytest.approx(0.5 + mean.sum())
        assert up.value[-1] == pytest.approx(mean.sum())
        rate, _ = rate_and_distortion(table, prior=0.5)
        assert rate[0] == pytest.approx(0.5 + mean[1:].sum())
        assert rate[-1] == pytest.approx(0.5)


def test_a_long_but_shorter_chain_has_bins_of_equal_width_in_t():
    t = np.arange(5, 4001, 5)
    terms = terms_of([np.full(20, 1.0 / x) for x in t], t=t)
    bins = log_bins([terms], per_decade=4)
    width = np.log10(bins.last_t[5:-1] / bins.first_t[5:-1])
    assert width == pytest.approx(np.full(len(width), 0.25), abs=0.05)
    total = from_data(binned(terms, bins)).value[-1]
    assert total == pytest.approx((1.0 / t).sum(), rel=1e-3)


def test_edges_lie_between_the_steps_of_the_chain():
    terms = terms_of(some_draws([9, 9, 9, 9]), t=np.array([1, 4, 10, 100]))
    assert log_bins([terms]).edges == pytest.approx([0.5, 2.5, 7.0, 55.0, 100.5])


def test_the_interpolation_of_a_learned_variance_is_averaged_over_draws():
    terms = terms_of(some_draws([9, 3, 20]))
    assert binned(terms, bins_of_one(3)).interpolation == pytest.approx([0.25, 0.25, 0.25])
