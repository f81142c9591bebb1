"""Units of reported bounds, and shares of the bound along the chain."""

import math

import pytest
import torch

from nelbo.evaluation.accumulator import BoundAccumulator, Draws
from nelbo.evaluation.t_bins import shares_by_t_bin, t_bins
from nelbo.evaluation.units import unit_of


def measured(K, n=20, seed=0) -> BoundAccumulator:
    """Two draws of L_0 and five at random for each example."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.cat([torch.ones(n, 2).long(), torch.randint(2, max(K, 2) + 1, (n, 5))], dim=1).clamp(max=K)
    accumulator = BoundAccumulator(K)
    nats = torch.rand(steps.shape, generator=generator)
    accumulator.add(Draws(steps, torch.rand(steps.shape, generator=generator), nats, torch.rand(n)))
    return accumulator


def test_unit_of_discrete_data_is_bits_per_dimension():
    unit = unit_of(dims=64, levels=17)
    assert (unit.metric, unit.label) == ("bpd", "bits/dim")
    # the uniform distribution over 17 levels
    assert 64 * math.log(17) * unit.per_nat == pytest.approx(math.log2(17))


def test_unit_of_continuous_data_is_nats():
    unit = unit_of(dims=2, levels=None)
    assert (unit.metric, unit.label, unit.per_nat) == ("nelbo", "nats", 1.0)


@pytest.mark.parametrize(("levels", "total"), [(256, "bpd"), (None, "nelbo")])
def test_metrics_add_up_and_carry_their_errors(levels, total):
    unit, estimate = unit_of(12, levels), measured(8).estimate()
    metrics = unit.metrics("val", estimate)
    parts = ("L_0", "L_t", "L_T")
    assert set(metrics) == {f"val/{name}{end}" for name in (total, *parts) for end in ("", "_stderr")}
    assert sum(metrics[f"val/{name}"] for name in parts) == pytest.approx(metrics[f"val/{total}"], rel=1e-12)
    assert metrics[f"val/{total}_stderr"] == pytest.approx(estimate.total.stderr * unit.per_nat)


def test_bins_of_continuous_time_are_equally_wide_in_u():
    groups = t_bins(torch.arange(101, dtype=torch.float64) / 100)
    assert groups.columns == (
        "L_0", "u_0.0_0.2", "u_0.2_0.4", "u_0.4_0.6", "u_0.6_0.8", "u_0.8_1.0", "L_T"
    )  # fmt: skip
    assert groups.of_step.bincount().tolist() == [1, 20, 20, 20, 20, 20]
    assert t_bins(torch.tensor([0.5, 0.55, 1.0], dtype=torch.float64)).of_step.tolist() == [0, 3, 5]


@pytest.mark.parametrize("K", [1, 2, 10, 11, 100, 1000, 1234])
def test_shares_by_t_bin_add_up_to_one(K):
    accumulator = measured(K)
    estimate = accumulator.estimate()
    shares = shares_by_t_bin(torch.arange(1, K + 1), accumulator.contributions(), estimate.prior.mean)
    assert sum(shares.values()) == pytest.approx(1.0, rel=1e-12)
    assert shares["L_0"] == pytest.approx(estimate.reconstruction.mean / estimate.total.mean, rel=1e-9)
    assert shares["L_T"] == pytest.approx(estimate.prior.mean / estimate.total.mean, rel=1e-9)


def test_t_bins_are_by_t_and_not_by_position_in_the_chain():
    contribution = torch.tensor([3.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    shares = shares_by_t_bin(torch.tensor([5, 10, 50, 1000]), contribution, prior=1.0)
    assert list(shares) == ["L_0", "t_2_10", "t_11_100", "t_101_1000", "L_T"]
    assert list(shares.values()) == pytest.approx([0.3, 0.1, 0.2, 0.3, 0.1])


@pytest.mark.parametrize(
    ("last", "names"),
    [(1, []), (2, ["t_2_10"]), (10, ["t_2_10"]), (11, ["t_2_10", "t_11_100"]), (4000, None)],
)
def test_t_bins_cover_the_chain(last, names):
    groups = t_bins(torch.arange(1, last + 1))
    names = ["t_2_10", "t_11_100", "t_101_1000", "t_1001_10000"] if names is None else names
    assert list(groups.columns) == ["L_0", *names, "L_T"]
    edges = {name: [int(n) for n in name.split("_")[1:]] for name in names}
    for t, group in enumerate(groups.of_step.tolist(), start=1):
        name = groups.columns[group]
        assert name == "L_0" if t == 1 else edges[name][0] <= t <= edges[name][1]


def test_metrics_split_a_known_error_in_two_parts():
    d = Draws(
        torch.ones(4, 1).long(), torch.ones(4, 1), torch.tensor([[1.0], [2], [3], [4]]), torch.zeros(4),
        deviations=lambda values: torch.full_like(values, 0.5),
    )  # fmt: skip
    accumulator = BoundAccumulator(1)
    accumulator.add(d)
    metrics = unit_of(12, None).metrics("test", accumulator.estimate())
    whole, mc_stderr = metrics["test/nelbo_stderr"], metrics["test/nelbo_stderr_monte_carlo"]
    assert mc_stderr == pytest.approx(math.sqrt(4 * 0.5) / 4)
    assert metrics["test/nelbo_stderr_data_set"] == pytest.approx(math.sqrt(whole**2 - mc_stderr**2))
