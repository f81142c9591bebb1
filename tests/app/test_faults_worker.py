"""A process that fetches data and is killed: one line, no hang, nothing left running, training saved."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def wait_for_lines(path: Path, process: subprocess.Popen) -> None:
    """Until the file has a header and a row."""
    while not path.exists() or path.read_text().count("\n") < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def test_training_ends_with_one_line_and_a_checkpoint(tmp_path, tiny):
    run = tmp_path / "run"
    command = [
        sys.executable, "train.py", f"hydra.run.dir={run}", *tiny, "logger=none", "data.num_workers=2",
        "trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "checkpoint_every=1000000",
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
            workers = psutil.Process(process.pid).children(recursive=True)
            assert len(workers) >= 2
            workers[-1].kill()
            _, err = process.communicate(timeout=120)
            alive = psutil.wait_procs(workers, timeout=30)[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert alive == []
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "a process that fetches data died" in errors[0]
    assert "data.num_workers=0" in errors[0]
    assert "Traceback" not in err
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] > 0
