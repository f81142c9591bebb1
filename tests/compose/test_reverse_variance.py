"""The variances that an evaluation adds to the chosen one."""

import torch

from nelbo.compose.reverse_variance import other_variances
from nelbo.diffusion.chain import Chain, ContinuousTime
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.spacings import Even
from nelbo.diffusion.variances import Analytic, FixedLarge, FixedSmall

LINE = LinearLogSNRSchedule(None)


def names(*arguments):
    return [type(variance).__name__ for variance in other_variances(*arguments)]


def test_chains_are_evaluated_with_the_fixed_variances_as_well():
    chosen = Analytic(torch.zeros(10))
    assert names(chosen, FixedLarge(), Chain(CosineSchedule(10))) == ["FixedLarge", "FixedSmall"]
    assert names(FixedSmall(), FixedSmall(), Even().chain(LINE, 4)) == ["FixedLarge"]


def test_continuous_time_has_no_other_variances_since_they_change_no_term():
    assert names(FixedSmall(), FixedLarge(), ContinuousTime(LINE)) == []
