"""Accumulators: means and standard errors from sums."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nelbo.evaluation.accumulator import BoundAccumulator, Draws, Estimate
from nelbo.evaluation.stratified_draws import deviations_of_sum
from nelbo.evaluation.t_bins import t_bins

K, R = 5, 3
TIMESTEPS = torch.arange(1, K + 1)


def draws(n, seed=0, **more) -> Draws:
    """R draws of each of n examples, the first of them L_0."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(2, K + 1, (n, R), generator=generator)
    steps[:, 0] = 1
    weights = torch.rand(n, R, generator=generator, dtype=torch.float64)
    nats = torch.randn(n, R, generator=generator, dtype=torch.float64).exp()
    prior = torch.rand(n, generator=generator, dtype=torch.float64)
    return Draws(steps, weights, nats, prior, **more)


def rows(d: Draws, which) -> Draws:
    controls = None if d.controls is None else d.controls[which]
    return Draws(
        d.steps[which], d.weights[which], d.nats[which], d.prior[which], None, None, controls, d.deviations
    )


def single(values, steps=None) -> Draws:
    """One draw of weight 1 for each example, with no prior."""
    nats = torch.tensor(values, dtype=torch.float64)[:, None]
    steps = torch.ones_like(nats).long() if steps is None else torch.tensor(steps)[:, None]
    return Draws(steps, torch.ones_like(nats), nats, torch.zeros(len(nats)))


def accumulator_of(d: Draws) -> BoundAccumulator:
    accumulator = BoundAccumulator(K)
    accumulator.add(d)
    return accumulator


def test_means_and_errors_are_those_of_numpy():
    d = draws(50)
    estimate = accumulator_of(d).estimate()
    weighted = (d.weights * d.nats).numpy()
    columns = {
        "reconstruction": weighted[:, 0],
        "denoising": weighted[:, 1:].sum(1),
        "prior": d.prior.numpy(),
        "total": weighted.sum(1) + d.prior.numpy(),
    }
    for name, values in columns.items():
        part = getattr(estimate, name)
        assert part.mean == pytest.approx(values.mean(), rel=1e-12)
        assert part.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-9)
    assert estimate.num_examples == 50
    assert estimate.num_evaluations == 50 * R


def test_the_table_is_that_of_numpy():
    d = draws(50)
    accumulator = accumulator_of(d)
    table, contributions = accumulator.step_table(TIMESTEPS), accumulator.contributions()
    for i in range(1, K + 1):
        mine = d.nats[d.steps == i].numpy()
        assert table.count[i - 1] == len(mine)
        assert table.mean[i - 1] == pytest.approx(mine.mean(), rel=1e-12)
        assert table.stderr[i - 1] == pytest.approx(mine.std(ddof=1) / np.sqrt(len(mine)), rel=1e-9)
        weighted = (d.weights * d.nats)[d.steps == i].sum() / 50
        assert contributions[i - 1] == pytest.approx(weighted.item(), rel=1e-12)
    assert torch.equal(table.t, TIMESTEPS)
    assert table.mse.isnan().all()
    assert table.interpolation.isnan().all()


def test_errors_and_interpolations_are_averaged_over_the_draws_of_a_step():
    d = single([1.0, 1.0, 1.0], [2, 2, 4])
    column = torch.tensor([[1.0], [7.0], [9.0]])
    table = accumulator_of(
        Draws(d.steps, d.weights, d.nats, d.prior, errors=column, interpolations=column)
    ).step_table(TIMESTEPS)
    assert table.mse[[1, 3]].tolist() == [4.0, 9.0]
    assert table.interpolation[[1, 3]].tolist() == [4.0, 9.0]


def test_merged_ranges_have_the_sums_of_their_steps():
    table = accumulator_of(single([1.0, 3.0, 5.0, 2.0], [1, 2, 4, 5])).step_table(10 * TIMESTEPS)
    merged = table.merged(torch.tensor([0, 1, 3]))
    assert merged.t.tolist() == [10, 20, 40]
    assert merged.count.tolist() == [1, 1, 2]
    assert merged.mean.tolist() == [1.0, 3.0, 3.5]
    assert merged.stderr[2] == pytest.approx(np.std([5.0, 2.0], ddof=1) / np.sqrt(2))


def test_a_step_drawn_twice_in_a_batch_counts_twice():
    table = accumulator_of(single([1.0, 3.0, 5.0], [2, 2, 4])).step_table(TIMESTEPS)
    assert table.count.tolist() == [0, 2, 0, 1, 0]
    assert table.sum.tolist() == [0, 4, 0, 5, 0]
    assert table.stderr[1] == pytest.approx(1.0)
    assert table.mean[0].isnan()
    assert table.stderr[3].isnan()


@pytest.mark.parametrize("control", [False, True])
def test_accumulators_of_several_ranks_are_added(control):
    d, index = draws(60), torch.arange(60)
    d = replace(d, controls=d.nats.log(), deviations=deviations_of_sum)
    parts = [BoundAccumulator(K, num_examples=60, control=control) for _ in range(3)]
    for accumulator, which in zip(parts, (index, index[::2], index[1::2]), strict=True):
        accumulator.add(rows(d, which), which)
    whole, first, second = parts
    together = first.empty()
    together.merge(first)
    others = torch.cat([x.flatten() for x in second.sums.values()])
    together.all_reduce_sum(lambda flat: flat.add_(others))
    torch.testing.assert_close(together.sums, whole.sums, rtol=1e-13, atol=1e-13)
    assert together.estimate().total.mean == pytest.approx(whole.estimate().total.mean, rel=1e-13)
    torch.testing.assert_close(together.example_table(), whole.example_table(), rtol=1e-12, atol=1e-12)


def test_example_table_has_a_column_per_group_of_steps():
    groups = t_bins(torch.tensor([1, 5, 10, 11, 200]))
    assert groups.columns == ("L_0", "t_2_10", "t_11_100", "t_101_1000", "L_T")
    accumulator = BoundAccumulator(K, num_examples=2, groups=groups)
    steps = torch.tensor([[1, 2, 3, 4], [5, 5, 1, 2]])
    nats = torch.arange(8.0).view(2, 4)
    accumulator.add(
        Draws(steps, torch.full((2, 4), 2.0), nats, torch.tensor([0.5, 0.25])), torch.tensor([1, 0])
    )
    assert accumulator.example_table().tolist() == [[12.0, 14.0, 0.0, 18.0, 0.25], [0.0, 6.0, 6.0, 0.0, 0.5]]


def test_stderr_of_one_example_is_nan():
    d = draws(1)
    estimate = accumulator_of(d).estimate()
    assert estimate.total.mean == pytest.approx(float((d.weights * d.nats).sum() + d.prior.sum()))
    assert math.isnan(estimate.total.stderr)


def test_estimate_of_an_empty_accumulator_raises():
    accumulator = BoundAccumulator(K)
    with pytest.raises(AssertionError, match="nothing was added"):
        accumulator.estimate()
    accumulator.add(draws(3))
    accumulator.reset()
    with pytest.raises(AssertionError, match="nothing was added"):
        accumulator.estimate()


def test_reset_can_keep_the_number_of_evaluations():
    accumulator = BoundAccumulator(K, num_examples=3)
    accumulator.add(draws(3), torch.arange(3))
    accumulator.reset(keep_evaluations=True)
    assert accumulator.num_evaluations == 3 * R
    assert accumulator.example_table().abs().sum() == 0
    assert accumulator.step_table(TIMESTEPS).count.sum() == 0


def test_stderr_of_equal_values_is_zero():
    accumulator = accumulator_of(single([1 / 3] * 1000))
    assert accumulator.estimate().total.stderr == pytest.approx(0.0, abs=1e-8)


def test_stderr_of_several_rounds_is_that_of_the_examples_means():
    """A large Monte Carlo variance of single rounds does not change the spread of the examples."""
    n, rounds = 50, 4
    values = torch.randn(rounds, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    accumulator = BoundAccumulator(1, num_examples=n)
    for row in values:
        known = replace(single(row.tolist()), deviations=lambda values: torch.full_like(values, 10.0))
        accumulator.add(known, torch.arange(n))
    total = accumulator.estimate(rounds).total
    assert total.mean == pytest.approx(values.mean().item())
    assert total.stderr == pytest.approx(values.mean(0).std().item() / n**0.5)
    assert total.mc_stderr == pytest.approx((200.0 / (rounds * n)) ** 0.5)  # 100 in each part


def test_data_stderr_is_the_rest_of_the_error():
    known, unknown = Estimate(1.0, 0.5, 0.3), Estimate(1.0, 0.5)
    assert known.data_stderr == pytest.approx(0.4)
    assert unknown.data_stderr is None
    assert Estimate(1.0, 0.3, 0.5).data_stderr == 0.0
