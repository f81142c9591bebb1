"""Time to the first step of ``train.py`` on two processes, of two checkouts.

    python -m benchmarks.launch --other CHECKOUT

Both checkouts run the same command in turn on the CPU. The first row of
``metrics.csv`` marks the first step. The CPU time is that of the whole command
on all its processes; other load on the machine changes it less than the clock
time.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = (
    "model=mlp",
    "model.width=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.max_steps=1",
    "trainer.log_every_n_steps=1",
    "lr_schedule.warmup_steps=0",
    "callbacks.samples=null",
    "logger=none",
)


def cpu_seconds() -> float:
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_train(checkout: Path) -> tuple[float, float]:
    """Run ``train.py`` of a checkout to its end; return the seconds to its first step and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run/metrics.csv"
        started, cpu_before = time.perf_counter(), cpu_seconds()
        process = subprocess.Popen(
            [sys.executable, str(checkout / "train.py"), *OPTIONS, f"hydra.run.dir={metrics.parent}"],
            env=os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        while not metrics.exists() and process.poll() is None:
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if process.wait() != 0:
            raise RuntimeError(f"{checkout}: train.py ended with exit code {process.returncode}")
        return seconds, cpu_seconds() - cpu_before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other", type=Path, required=True, help="another checkout of nelbo")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append((run_train(ROOT), run_train(arguments.other)))
        (this, cpu), (other, other_cpu) = rounds[-1]
        print(f"{this:6.1f} s, other {other:6.1f} s; CPU {cpu:6.1f} s, other {other_cpu:6.1f} s", flush=True)
    for name, column in (("first step", 0), ("CPU time", 1)):
        low, middle, high = statistics.quantiles([a[column] / b[column] for a, b in rounds], n=4)
        print(
            f"{name}: ratio {middle:.2f} [{low:.2f}, {high:.2f}], median and quartiles of {len(rounds)} pairs"
        )


if __name__ == "__main__":
    main()
