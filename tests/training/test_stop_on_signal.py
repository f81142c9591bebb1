"""Ranks stop for the same signal, whichever of them has received it."""

import signal
from types import SimpleNamespace

import pytest
import torch

from nelbo.training.callbacks import StopOnSignal
from nelbo.training.errors import Interrupted

RECEIVED = {  # on this rank, on another one, and what both stop for
    "the other": (None, signal.SIGUSR1, signal.SIGUSR1),
    "this one": (signal.SIGUSR1, None, signal.SIGUSR1),
    "both": (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM),
}


def two_ranks(other: int | None) -> SimpleNamespace:
    def reduce(own, reduce_op):
        assert reduce_op == "max"
        return torch.maximum(own, torch.tensor(other or 0))

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    return SimpleNamespace(world_size=2, global_step=10, strategy=strategy)


@pytest.mark.parametrize(("own", "other", "expected"), RECEIVED.values(), ids=list(RECEIVED))
def test_all_ranks_stop_for_the_same_signal(own, other, expected):
    callback = StopOnSignal()
    callback._received = own
    with pytest.raises(Interrupted) as stopped:
        callback._stop_if_received(two_ranks(other))
    assert stopped.value.signal == expected


def test_without_a_signal_no_rank_stops():
    StopOnSignal()._stop_if_received(two_ranks(None))
