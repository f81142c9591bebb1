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
        others = [pid for pid in of_session(parent.pid) if b"hydra.mode=RUN" in command_line(pid)]
        return SimpleNamespace(parent=parent, child=others[0] if others else None, last=last)

    yield start
    for parent in parents:
        for pid in of_session(parent.pid):
            os.kill(pid, signal.SIGKILL)
        parent.wait()


def of_session(session: int) -> list[int]:
    """The processes that are alive of those that a command started."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            alive.append(int(folder.name))
    return alive


def command_line(pid: int) -> bytes:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes()


def how_it_ended(run: SimpleNamespace) -> tuple[int, str]:
    """Exit code and stderr of the command, when all of its processes have ended."""
    code = run.parent.wait(SECONDS)
    until = time.monotonic() + SECONDS
    while of_session(run.parent.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert of_session(run.parent.pid) == []
    err = run.parent.stderr.read()
    assert "Traceback" not in err
    # without the warnings of libraries
    said = [line for line in err.splitlines() if line.strip() and line[0] not in " \t/"]
    return code, "\n".join(said)


def test_a_process_that_is_killed_ends_the_run(running):
    run = running()
    os.kill(run.child, signal.SIGKILL)
    code, err = how_it_ended(run)
    assert code == 1
    assert err.startswith("error: process 1 of 2 ended with signal 9 at step ")
    assert err.endswith(f"; last checkpoint: {run.last}")
    assert err.count("\n") == 0


def test_the_first_process_that_is_killed_ends_the_run(running):
    run = running()
    os.kill(run.parent.pid, signal.SIGKILL)
    code, err = how_it_ended(run)
    assert code == -signal.SIGKILL, err
    assert err.startswith("error: process 0 ended at step ")
    assert err.endswith(f"; last checkpoint: {run.last}")
    assert err.count("\n") == 0


@pytest.mark.parametrize("who", ["parent", "all"])
def test_an_interruption_leaves_nobody_behind(running, who):
    run = running()
    if who == "all":  # as a terminal does
        os.killpg(run.parent.pid, signal.SIGINT)
    else:
        os.kill(run.parent.pid, signal.SIGINT)
    code, _ = how_it_ended(run)
    assert code != 0


def test_a_process_that_hangs_is_given_up(running):
    run = running("trainer.strategy.timeout=60")
    os.kill(run.child, signal.SIGSTOP)
    code, err = how_it_ended(run)
    assert code == 1
    assert err.startswith("error: no answer from the other processes for as long as trainer.strategy.timeout")
    assert err.count("\n") == 0


def test_what_one_process_cannot_do_is_said_once(running):
    """Learnt by all of them at once, when the training begins."""
    run = running("lr_schedule=cosine", "trainer.max_steps=-1", "trainer.max_epochs=2")
    code, err = how_it_ended(run)
    assert code == 1
    assert err.startswith("error: lr_schedule=cosine must know where to end")
    assert err.count("\n") == 0
