"""Without a terminal, work that takes long prints plain lines."""

import threading
import time
from types import SimpleNamespace

import pytest

from nelbo import progress
from nelbo.evaluation.units import unit_of
from nelbo.reports.evaluation_progress import evaluation_progress


@pytest.fixture
def printed(monkeypatch):
    """Collects what is printed, at once; the event says that there was a line."""
    lines, came = [], threading.Event()

    def collect(line, flush):
        assert flush
        lines.append(line)
        came.set()

    monkeypatch.setattr(progress, "SECONDS", 0.01)
    monkeypatch.setattr(progress, "print", collect, raising=False)
    return SimpleNamespace(lines=lines, came=came)


def test_counted_work_says_how_much_is_done(printed):
    with progress.counted("measuring moments") as update:
        update(3, 12)
        assert printed.came.wait(60)
    assert printed.lines[-1].startswith("measuring moments: 25%, ")


def test_it_prints_nothing_on_other_ranks(printed):
    with progress.counted("measuring moments", shown=False) as update:
        update(3, 12)
        assert not printed.came.wait(0.1)


def test_it_ends_with_the_work(printed):
    before = threading.active_count()
    with progress.counted("measuring moments"):
        assert printed.came.wait(60)
    while threading.active_count() > before:
        time.sleep(0.01)


def test_an_evaluation_says_the_estimate_and_the_part_of_the_round(printed):
    def accumulator(mean, done):
        estimate = SimpleNamespace(total=SimpleNamespace(mean=mean, stderr=0.5), num_examples=done)
        return SimpleNamespace(estimate=lambda rounds=1: estimate, num_evaluations=1000, num_examples=200)

    with evaluation_progress(SimpleNamespace(rounds=1), unit_of(2, None)) as show:
        show(accumulator(0.0, 0), accumulator(3.25, 50))
        assert printed.came.wait(60)
    assert printed.lines[-1].startswith("round 1: 3.25 ± 0.50 nats, 2,000 evaluations, 25% of the round, ")
    assert " s" in printed.lines[-1]


def test_an_interrupted_evaluation_says_that_nothing_is_saved(capsys):
    with pytest.raises(KeyboardInterrupt), evaluation_progress(SimpleNamespace(), unit_of(64, 17)):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("nothing is saved")
