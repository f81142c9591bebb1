"""Nats become what people read, and the bound is shared out over the chain."""

import math

import pytest
import torch

from nelbo.evaluation.decades import shares_by_decade
from nelbo.evaluation.tally import BoundTally
from nelbo.evaluation.units import unit_of


def measured(K, seed=0) -> BoundTally:
    """Every step drawn once or more, steps with larger t more often."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.cat([torch.arange(1, K + 1), torch.randint(K // 2 + 1, K + 1, (50,), generator=generator)])
    tally = BoundTally(K)
    tally.add_terms(index, torch.rand(len(index), generator=generator))
    parts = torch.rand(3, 20, generator=generator)
    tally.add_examples(*parts)
    return tally


def test_discrete_data_is_read_in_bits_per_dimension():
    unit = unit_of(dims=64, levels=17)
    assert (unit.metric, unit.label) == ("bpd", "bits/dim")
    # the uniform distribution over 17 levels
    assert 64 * math.log(17) * unit.per_nat == pytest.approx(math.log2(17))


def test_continuous_data_is_read_in_nats():
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


@pytest.mark.parametrize("K", [1, 2, 10, 11, 100, 1000, 1234])
def test_shares_of_the_decades_add_up_to_one(K):
    tally = measured(K)
    if K == 1:  # nothing to denoise
        tally = BoundTally(1)
        tally.add_terms(torch.tensor([1]), torch.tensor([1.0]))
        tally.add_examples(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.2]))
    shares = shares_by_decade(torch.arange(1, K + 1), tally.step_table(), tally.estimate())
    assert sum(shares.values()) == pytest.approx(1.0, rel=1e-12)


def test_decades_are_those_of_t_and_not_of_the_position_in_the_chain():
    tally = BoundTally(4)
    tally.add_terms(torch.tensor([1, 2, 3, 4]), torch.tensor([9.0, 1.0, 2.0, 3.0]))
    tally.add_examples(torch.tensor([3.0]), torch.tensor([6.0]), torch.tensor([1.0]))
    shares = shares_by_decade(torch.tensor([5, 10, 50, 1000]), tally.step_table(), tally.estimate())
    assert list(shares) == ["L_0", "t_2_10", "t_11_100", "t_101_1000", "L_T"]
    assert list(shares.values()) == pytest.approx([0.3, 0.1, 0.2, 0.3, 0.1])
