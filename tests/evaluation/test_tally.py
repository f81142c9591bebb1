"""Tallies: sums from which means and errors are read."""

import math

import numpy as np
import pytest
import torch

from nelbo.evaluation.tally import BoundTally

K = 5


def draws(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(3, n, generator=generator, dtype=torch.float64).exp()
    index = torch.randint(1, K + 1, (n,), generator=generator)
    return parts, index, torch.randn(n, generator=generator, dtype=torch.float64)


def tally_of(parts, index, nats) -> BoundTally:
    tally = BoundTally(K)
    tally.add_examples(*parts)
    tally.add_terms(index, nats)
    return tally


def test_means_and_errors_are_those_of_numpy():
    parts, index, nats = draws(50)
    estimate = tally_of(parts, index, nats).estimate()
    columns = dict(zip(("reconstruction", "denoising", "prior"), parts.numpy(), strict=True))
    columns["total"] = parts.numpy().sum(0)
    for name, values in columns.items():
        part = getattr(estimate, name)
        assert part.mean == pytest.approx(values.mean(), rel=1e-12)
        assert part.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-9)
    assert estimate.num_examples == estimate.num_evaluations == 50


def test_the_table_is_that_of_numpy():
    parts, index, nats = draws(50)
    table = tally_of(parts, index, nats).step_table()
    for i in range(1, K + 1):
        mine = nats[index == i].numpy()
        assert table.count[i - 1] == len(mine)
        assert table.mean[i - 1] == pytest.approx(mine.mean(), rel=1e-12)
        assert table.stderr[i - 1] == pytest.approx(mine.std(ddof=1) / np.sqrt(len(mine)), rel=1e-9)


def test_a_step_drawn_twice_in_a_batch_counts_twice():
    tally = BoundTally(K)
    tally.add_terms(torch.tensor([2, 2, 4]), torch.tensor([1.0, 3.0, 5.0]))
    table = tally.step_table()
    assert table.count.tolist() == [0, 2, 0, 1, 0]
    assert table.sum.tolist() == [0, 4, 0, 5, 0]
    assert table.stderr[1] == pytest.approx(1.0)
    assert table.mean[0].isnan()
    assert table.stderr[3].isnan()


def test_tallies_of_several_ranks_are_added():
    parts, index, nats = draws(60)
    whole = tally_of(parts, index, nats)
    first = tally_of(parts[:, :23], index[:23], nats[:23])
    second = tally_of(parts[:, 23:], index[23:], nats[23:])
    first.sums.add_(second.sums)
    torch.testing.assert_close(first.sums, whole.sums, rtol=1e-13, atol=1e-13, equal_nan=True)
    assert first.estimate() == pytest.approx(whole.estimate()) or (
        first.estimate().total.mean == pytest.approx(whole.estimate().total.mean, rel=1e-13)
    )


def test_an_error_of_one_example_is_not_known():
    parts, index, nats = draws(1)
    estimate = tally_of(parts, index, nats).estimate()
    assert estimate.total.mean == pytest.approx(float(parts.sum()))
    assert math.isnan(estimate.total.stderr)


def test_an_empty_tally_says_so():
    tally = BoundTally(K)
    assert tally.is_empty
    with pytest.raises(AssertionError, match="nothing was added"):
        tally.estimate()
    tally.add_examples(*draws(3)[0])
    assert not tally.is_empty
    tally.reset()
    assert tally.is_empty


def test_equal_values_have_no_error_and_not_a_negative_variance():
    tally = BoundTally(K)
    third = torch.full((1000,), 1 / 3)
    tally.add_examples(third, third, third)
    assert tally.estimate().total.stderr == pytest.approx(0.0, abs=1e-8)


def test_with_several_rounds_the_error_is_that_of_each_examples_average():
    """However large the chance in single rounds is said to be, it does not hide the spread of examples."""
    n, rounds = 50, 4
    draws = torch.randn(rounds, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tally = BoundTally(1, num_examples=n)
    for row in draws:
        zero, index = torch.zeros(n), torch.arange(n)
        tally.add_examples(row, zero, zero, (torch.full((n,), 100.0), zero), index)
    total = tally.estimate(rounds).total
    assert total.mean == pytest.approx(draws.mean().item())
    assert total.stderr == pytest.approx(draws.mean(0).std().item() / n**0.5)
    assert total.monte_carlo == pytest.approx((100.0 / (rounds * n)) ** 0.5)
