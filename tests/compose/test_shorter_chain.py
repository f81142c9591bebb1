"""Chains of a spacing that is completed by the measured costs of steps."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from nelbo.compose.shorter_chain import spaced_chain
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.spacings import Even, Optimal
from nelbo.diffusion.step_cost_table import StepCostTable

T = 6
SCHEDULE = CosineSchedule(T)


def costs_for(path: list[int]) -> StepCostTable:
    """Costs under which this chain is free, and every other level or step costs 1."""
    first, step = torch.ones(T, T + 1), torch.ones(T, T)
    first[path[0] - 1] = 0.0
    for s, t in pairwise(path):
        step[s - 1, t - 1] = 0.0
    impossible = torch.ones(T, T + 1, dtype=torch.bool).tril()
    first, step = first.masked_fill(impossible, torch.inf), step.masked_fill(impossible[:, :T], torch.inf)
    return StepCostTable(torch.arange(1, T + 1), first.double(), step.double(), torch.zeros(T).double())


def not_needed() -> StepCostTable:
    pytest.fail("costs are measured although the chain does not depend on them")


def test_a_partial_spacing_is_completed_with_costs():
    chain = spaced_chain(partial(Optimal), SCHEDULE, 3, lambda: costs_for([2, 3, 5]))
    assert chain.t().tolist() == [2, 3, 5]


@pytest.mark.parametrize("steps", [None, T])
def test_the_full_chain_needs_no_costs(steps):
    assert spaced_chain(partial(Optimal), SCHEDULE, steps, not_needed).num_steps == T


def test_another_spacing_needs_no_costs():
    assert spaced_chain(Even(), SCHEDULE, 2, not_needed).t().tolist() == [1, T]


def test_more_steps_than_timesteps_are_refused_before_costs_are_measured():
    with pytest.raises(ValueError, match=r"^steps=7: the schedule has only 6 timesteps$"):
        spaced_chain(partial(Optimal), SCHEDULE, 7, not_needed)
