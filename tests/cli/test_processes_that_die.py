"""A process that dies, fails or is interrupted takes the others with it, and one line says why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.run_processes import processes_of, wait_until_ended

ROOT = Path(__file__).parents[2]
SECONDS = 150  # for all of them to end

pytestmark = pytest.mark.slow


@pytest.fixture
def running(tmp_path, tiny) -> Iterator[Callable[..., SimpleNamespace]]:
    """Starts a training on two processes that would go on for ever, and waits for its first checkpoint."""
    parents = []

    def start(*options: str) -> SimpleNamespace:
        endless = ("trainer.max_steps=1000000", "trainer.val_check_interval=1000000")
        command = [
            sys.executable, "train.py", *tiny, *endless, "logger=none", "lr_schedule=constant",
            "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", *options,
            f"hydra.run.dir={tmp_path / 'run'}",
        ]  # fmt: skip
        parent = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        parents.append(parent)
        last = tmp_path / "run/checkpoints/last.ckpt"
        until = time.monotonic() + 120
        while not last.exists() and parent.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        ranks = {rank_of(pid): pid for pid in processes_of(last.parents[1]) if pid != parent.pid}
        return SimpleNamespace(parent=parent, ranks=ranks, last=last)

    yield start
    for parent in parents:
        for pid in processes_of(tmp_path / "run"):
            os.kill(pid, signal.SIGKILL)
        parent.wait()


def rank_of(pid: int) -> int:
    environment = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    return next(int(entry.partition(b"=")[2]) for entry in environment if entry.startswith(b"RANK="))


def how_it_ended(run: SimpleNamespace) -> tuple[int, str]:
    """Exit code and stderr of the command, when all of its processes have ended."""
    code = run.parent.wait(SECONDS)
    wait_until_ended(run.last.parents[1], SECONDS)
    err = run.parent.stderr.read()
    assert "Traceback" not in err
    # without the warnings of libraries
    said = [line for line in err.splitlines() if line.strip() and line[0] not in " \t/"]
    return code, "\n".join(said)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_run(running, rank):
    run = running()
    os.kill(run.ranks[rank], signal.SIGKILL)
    code, err = how_it_ended(run)
    assert code == 1
    assert err == f"error: process {rank} of 2 ended with signal 9; last checkpoint: {run.last}"


def test_ranks_end_when_the_command_is_killed(running):
    run = running()
    os.kill(run.parent.pid, signal.SIGKILL)
    code, err = how_it_ended(run)
    assert (code, err) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_all_ranks(running, number):
    run = running()
    os.killpg(run.parent.pid, number)  # as a terminal does
    code, err = how_it_ended(run)
    assert code == 128 + number
    assert err.count("stopped at step ") == 1
    assert "resume=" in err


@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_ends_a_long_validation_before_the_next_batch(running, devices):
    """All of its examples would take hours; one process has a batch more than the other."""
    run = running(
        f"trainer.devices={devices}", "data.eval_batch_size=2", "trainer.val_check_interval=2",
        "val_estimator.evaluations_per_example=100000", "checkpoint_every=2",
    )  # fmt: skip
    os.killpg(run.parent.pid, signal.SIGINT)
    code, err = how_it_ended(run)
    assert code == 128 + signal.SIGINT
    assert f"stopped in the validation after step 2, saved in {run.last}; resume with: " in err
    assert err.count("stopped in") == 1


def test_hanging_rank_ends_the_job(running):
    run = running("trainer.strategy.timeout=60")
    os.kill(run.ranks[1], signal.SIGSTOP)
    code, err = how_it_ended(run)
    assert code == 1
    assert err.startswith(
        "error: no answer from another process within the timeout (trainer.strategy.timeout)"
    )
    assert err.endswith(f"; last checkpoint: {run.last}")
    assert err.count("\n") == 0


def test_error_of_one_rank_is_printed_once(running):
    """Learnt by all of them at once, when the training begins."""
    run = running("lr_schedule=cosine", "trainer.max_steps=-1", "trainer.max_epochs=2")
    code, err = how_it_ended(run)
    assert code == 1
    assert err.startswith("error: lr_schedule=cosine needs the number of steps")
    assert err.count("\n") == 0
