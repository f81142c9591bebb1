import pytest
import torch

from nelbo.cli.error_message import describe_error
from nelbo.data.examples import Flipped, TensorExamples
from nelbo.data.loader import Loader
from nelbo.data.order import ShuffledOrder


def make_loader(num_workers=0, in_flight=lambda: 0):
    x = torch.arange(40 * 3 * 2, dtype=torch.uint8).view(40, 1, 3, 2)
    examples = Flipped(TensorExamples(x, torch.arange(40)), seed=3)
    return Loader(examples, ShuffledOrder(40, 8, seed=3), num_workers, in_flight)


def indices(batches):
    return [batch.index.tolist() for batch in batches]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_position_survives_a_stop_anywhere(num_workers):
    whole = make_loader(num_workers)
    whole.set_epoch(4)
    expected = indices(whole)
    for consumed in range(6):
        stopped = make_loader(num_workers)
        stopped.set_epoch(4)
        for _, _ in zip(range(consumed), stopped, strict=False):
            pass
        state = stopped.state_dict()
        assert state == {"epoch": 4, "batches": consumed}  # whatever the workers have prefetched
        resumed = make_loader(num_workers)
        resumed.load_state_dict(state)
        resumed.set_epoch(4)
        assert resumed.state_dict() == state
        assert len(resumed) == 5
        assert indices(resumed) == expected[consumed:]
        resumed.set_epoch(5)
        assert indices(resumed) != expected


def test_a_second_pass_starts_at_the_first_batch():
    loader = make_loader()
    next(iter(loader))
    assert indices(loader) == indices(loader) == indices(make_loader())


def test_an_interrupted_batch_is_repeated():
    loader = make_loader(in_flight=lambda: 1)
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.state_dict() == {"epoch": 0, "batches": 1}


def test_the_global_random_state_is_unchanged():
    before = torch.get_rng_state()
    list(make_loader())
    assert torch.equal(torch.get_rng_state(), before)


def test_flips_depend_on_the_epoch_and_the_index_alone():
    flipped = Flipped(TensorExamples(torch.arange(32).view(8, 1, 1, 4)), seed=0)
    every = flipped.fetch(torch.arange(8), epoch=2).x0
    some = torch.tensor([5, 1])
    assert torch.equal(flipped.fetch(some, epoch=2).x0, every[some])
    mirrored = every[:, 0, 0, 0] % 4 == 3
    assert 0 < mirrored.sum() < 8
    assert not torch.equal(flipped.fetch(torch.arange(8), epoch=3).x0, every)


@pytest.mark.parametrize(
    ("num_workers", "message", "expected"),
    [
        (2, "[Errno 104] Connection reset by peer", RuntimeError),
        (2, "Caught ConnectionResetError in DataLoader worker process 0.", ConnectionResetError),
        (0, "[Errno 104] Connection reset by peer", ConnectionResetError),
    ],
    ids=["it died while it sent a batch", "its data was lost", "there is none"],
)
def test_a_worker_that_died_is_named(num_workers, message, expected, monkeypatch):
    loader = make_loader()

    class Broken:
        def __iter__(self):
            raise ConnectionResetError(message)
            yield

    broken = Broken()
    broken.num_workers = num_workers
    monkeypatch.setattr(loader, "_loader", broken)
    with pytest.raises(expected) as raised:
        next(iter(loader))
    assert describe_error(raised.value, "train").startswith(
        "a process that fetches data died" if expected is RuntimeError else message
    )
