"""What a ledger says about the levels of a chain."""

import pytest
import torch

from nelbo.diffusion.chain import Chain, ContinuousTime
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.spacings import Even, Karras
from nelbo.evaluation.ledger import describe_levels

COSINE, LINE = CosineSchedule(50), LinearLogSNRSchedule(None)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (Chain(COSINE), "1..50"),
        (Chain(COSINE, torch.tensor([1, 7, 50])), "1 7 50"),
        (ContinuousTime(LINE), "1..101"),
        (Even().chain(LINE, 5), "0 0.25 0.5 0.75 1"),
    ],
    ids=["all", "some", "continuous", "levels"],
)
def test_the_levels_of_a_chain_are_described(chain, expected):
    assert describe_levels(chain) == expected


def test_chains_of_the_same_length_are_told_apart():
    even, karras = (describe_levels(spacing.chain(LINE, 16)) for spacing in (Even(), Karras()))
    assert even != karras
