"""Memory, open files and seconds of a long run with many validations.

    python -m benchmarks.long_run  # 20,000 steps, 1,000 validations
    python -m benchmarks.long_run --steps 2000 --validations 100 data=patches

Starts ``python train.py`` with a small network and observes its process.
Further options go to train.py. Prints, after each tenth of the steps, the
resident memory (MiB), the open files, and the wall seconds of the tenth with
its validations. Only on Linux.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nelbo import torch_file

TENTHS = 10
SMALL = (
    "model=mlp",
    "model.width=32",
    "model.depth=1",
    "data.batch_size=32",
    "val_estimator.evaluations_per_example=3",
    "sampler.steps=2",
    "callbacks.samples.num_samples=4",
    "logger=csv",
)


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) / 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def saved_step(checkpoint: Path) -> int:
    """Optimizer steps of a checkpoint, 0 before it is there."""
    return torch_file.load(checkpoint)["global_step"] if checkpoint.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--validations", type=int, default=1_000)
    parser.add_argument("overrides", nargs="*", help="options of train.py")
    arguments = parser.parse_args()
    tenth = arguments.steps // TENTHS
    with tempfile.TemporaryDirectory() as folder:
        options = (
            *SMALL,
            f"trainer.max_steps={arguments.steps}",
            f"trainer.val_check_interval={arguments.steps // arguments.validations}",
            f"trainer.log_every_n_steps={tenth}",
            f"checkpoint_every={tenth}",
            *arguments.overrides,
            f"hydra.run.dir={folder}/run",
        )
        errors = Path(folder) / "stderr.txt"  # a pipe that nobody reads would stop the run when it is full
        with errors.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "train.py", *options],
                cwd=Path(__file__).parents[1],
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        last = Path(folder) / "run/checkpoints/last.ckpt"
        print(f"{'steps':>8}{'MiB':>8}{'files':>8}{'seconds':>9}")
        started = time.monotonic()
        for number in range(1, TENTHS + 1):
            while process.poll() is None and saved_step(last) < number * tenth:
                time.sleep(0.2)
            if process.poll() is not None:
                break
            now = time.monotonic()
            measured = f"{resident_mib(process.pid):>8.0f}{open_files(process.pid):>8}{now - started:>9.1f}"
            print(f"{number * tenth:>8}{measured}", flush=True)
            started = now
        if process.wait():
            raise SystemExit(f"train.py ended with exit code {process.returncode}: {errors.read_text()}")


if __name__ == "__main__":
    main()
