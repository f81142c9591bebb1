"""Time from the start of ``train.py`` on two processes to its first optimizer step, for two checkouts.

    python -m benchmarks.launch --other CHECKOUT

Both checkouts run the same command in turn on the CPU. The first row of ``metrics.csv`` marks the first step.
"""

import argparse
import os
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


def seconds_to_first_step(checkout: Path) -> float:
    """Run ``train.py`` of a checkout to its end, and return the time to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run/metrics.csv"
        started = time.perf_counter()
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
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other", type=Path, required=True, help="another checkout of nelbo")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    pairs = [
        (seconds_to_first_step(ROOT), seconds_to_first_step(arguments.other)) for _ in range(arguments.rounds)
    ]
    this, other = zip(*pairs, strict=True)
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    print(
        f"this checkout {statistics.median(this):.1f} s, the other {statistics.median(other):.1f} s (medians)"
    )
    print(f"ratio {middle:.2f} [{low:.2f}, {high:.2f}], median and quartiles of {len(pairs)} pairs")


if __name__ == "__main__":
    main()
