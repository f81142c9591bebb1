"""Real processes, killed at random moments and resumed until they end: as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.run_processes import signal_all, wait_until_ended
from tests.cli.test_killed_runs import STATEFUL, assert_same

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# a checkpoint at every step, so that many of the moments are in the writing of one
LONGER = ("trainer.max_steps=40", "checkpoint_every=1", "trainer.val_check_interval=15")
TWO = ("trainer.strategy=ddp", "trainer.devices=2")


class Run:
    """``train.py``, whose processes are all killed at once."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._before = changed(folder / "metrics.csv")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "train.py", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

    def wait_until_it_trains(self) -> None:
        """A new run has begun to log, one that goes on has put its files in order."""
        self._wait_until(lambda: changed(self.folder / "metrics.csv") != self._before)

    def wait_for_checkpoints(self, count: int) -> None:
        """Until so many more of them have been written."""
        last = self.folder / "checkpoints/last.ckpt"
        for _ in range(count):
            before = changed(last)
            self._wait_until(lambda before=before: changed(last) not in (before, 0))

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        signal_all(self.folder, signal.SIGKILL)
        self.process.wait()
        wait_until_ended(self.folder)

    def finish(self) -> None:
        assert self.process.wait(timeout=300) == 0

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition() and time.monotonic() < until and self.is_alive():
            time.sleep(0.001)


def changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


KILLS = int(os.environ.get("NELBO_KILLS", "3"))  # of two processes, for each way to resume


def test_run_of_two_processes_resumes_on_one(tmp_path, tiny):
    """Sums are added in another order."""
    chance = random.Random(1)
    options = (*tiny, *STATEFUL, *LONGER, *TWO)
    whole = Run(tmp_path / "whole", *options, f"hydra.run.dir={tmp_path}/whole")
    whole.finish()
    expected = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        run = Run(folder, *options, f"hydra.run.dir={folder}")
        run.wait_until_it_trains()
        run.wait_for_checkpoints(chance.randrange(1, 12))
        run.kill()
        Run(folder, f"resume={folder}", "trainer.devices=1", "trainer.strategy=auto").finish()
        found = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        assert found["global_step"] == expected["global_step"]
        for name in ("state_dict", "optimizer_states"):
            for (key, one), (other_key, other) in zip(
                tensors(found[name]), tensors(expected[name]), strict=True
            ):
                assert key == other_key
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=f"{number}, {name}{key}")


def tensors(content: Any, name: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        return [(name, content)]
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    return [
        pair
        for key, value in entries
        if isinstance(value, dict | list | torch.Tensor)
        for pair in tensors(value, f"{name}.{key}")
    ]


@pytest.mark.parametrize(("processes", "kills"), [((), 20), (TWO, KILLS)], ids=["one process", "two"])
def test_runs_killed_at_random_moments_equal_uninterrupted_run(processes, kills, tmp_path, tiny):
    chance = random.Random(0)
    options = (*tiny, *STATEFUL, *LONGER, *processes)
    whole = Run(tmp_path / "whole", *options, f"hydra.run.dir={tmp_path}/whole")
    whole.finish()
    number = 0
    while kills > 0:
        folder = tmp_path / str(number)
        run = Run(folder, *options, f"hydra.run.dir={folder}")
        while kills > 0:
            run.wait_until_it_trains()
            run.wait_for_checkpoints(chance.randrange(12))
            time.sleep(chance.uniform(0, 0.2))
            if not run.is_alive():
                break
            run.kill()
            kills -= 1
            run = Run(folder, f"resume={folder}")
        run.finish()
        assert_same(folder, tmp_path / "whole")
        number += 1
