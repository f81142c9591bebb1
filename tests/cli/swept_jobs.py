"""``train.py`` with a job that takes no time, for sweeps by real processes; its seed says what it does.

Run as a script, so that launchers hand the job to their workers by value.
"""

import os
import signal
import sys
import time
from math import log10
from pathlib import Path

from omegaconf import DictConfig

from nelbo.cli.command import run

FAILS, DIES, WAITS = 13, 99, 50  # from WAITS on, at the first attempt


def job(config: DictConfig) -> float:
    attempts = Path(config.run_dir) / "attempts.txt"
    with attempts.open("a") as file:
        file.write(f"resume={config.resume} threads={os.environ.get('OMP_NUM_THREADS')}\n")
    print("what a job prints")
    if config.seed == FAILS:
        raise ValueError("an unlucky seed")
    if config.seed == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    waits_at_trial = os.environ.get("WAITS_AT_TRIAL") == Path(config.run_dir).name
    if (config.seed >= WAITS or waits_at_trial) and attempts.read_text().count("\n") == 1:
        time.sleep(120)
    return (log10(config.optimizer.lr) + 3) ** 2


if __name__ == "__main__":
    sys.exit(run("train", job))
