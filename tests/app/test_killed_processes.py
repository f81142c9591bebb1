"""Real processes, killed at random moments and resumed until they end: as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.app.test_killed_runs import STATEFUL, assert_same

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# a checkpoint at every step, so that many of the moments are in the writing of one
LONGER = ("trainer.max_steps=40", "checkpoint_every=1", "trainer.val_check_interval=15")
TWO = ("trainer.strategy=ddp", "trainer.devices=2")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments], cwd=ROOT, env=environment, start_new_session=True
    )


def finish(process: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    assert process.wait(timeout=300) == 0
    return time.monotonic() - began


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize(("processes", "kills"), [((), 20), (TWO, 5)], ids=["one process", "two"])
def test_random_moments(processes, kills, tmp_path, tiny):
    chance = random.Random(0)
    options = (*tiny, *STATEFUL, *LONGER, *processes)
    whole = start(*options, f"hydra.run.dir={tmp_path}/whole")
    wait_for(tmp_path / "whole/.hydra/config.yaml")
    seconds = finish(whole)
    killed = run = 0
    while killed < kills:
        folder = tmp_path / str(run)
        process = start(*options, f"hydra.run.dir={folder}")
        wait_for(folder / ".hydra/config.yaml")
        while process.poll() is None and killed < kills:
            time.sleep(chance.uniform(0, seconds))
            if process.poll() is None:
                kill(process)
                killed += 1
                process = start(f"resume={folder}")
                time.sleep(chance.uniform(0, 1) * 5)
        if process.poll() is None:
            finish(process)
        assert process.returncode == 0
        assert_same(folder, tmp_path / "whole")
        run += 1
