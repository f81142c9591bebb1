"""A process that fetches data and is killed: one line, no hang, nothing left running, `last.ckpt` whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
]


def wait_for_lines(path: Path, process: subprocess.Popen) -> None:
    """Until the file has a header and a row."""
    while not path.exists() or path.read_text().count("\n") < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes that any thread of a process started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_training_ends_with_one_line_and_a_checkpoint(tmp_path, tiny):
    run = tmp_path / "run"
    command = [
        sys.executable, "train.py", f"hydra.run.dir={run}", *tiny, "logger=none", "data.num_workers=2",
        "trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "checkpoint_every=10",
        "trainer.log_every_n_steps=20",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_for_lines(run / "metrics.csv", process)
            workers = children(process.pid)
            assert len(workers) >= 2
            os.kill(workers[-1], signal.SIGKILL)
            _, err = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert not [worker for worker in workers if is_running(worker)]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "a process that fetches data died" in errors[0]
    assert "data.num_workers=0" in errors[0]
    assert "Traceback" not in err
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] > 0
