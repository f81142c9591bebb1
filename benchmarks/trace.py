"""Record the results of a dozen short runs, and compare them after a change.

    python -m benchmarks.trace record before.json
    ... change the code ...
    python -m benchmarks.trace compare before.json

Each configuration is trained for a few steps, evaluated and sampled by the
commands. The file contains training and validation metrics, the rows of
bound.parquet, the weights, the bound of each test example, and the samples,
without timings and throughput. The comparison lists all values that are not
equal. All runs use one thread, because the number of threads changes the order
of sums.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

ROOT = Path(__file__).parents[1]
SHORT = (
    "data.batch_size=32",
    "trainer.max_steps=12",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=3",
    "lr_schedule.warmup_steps=4",
    "callbacks.samples=null",
    "checkpoint_every=6",
    "logger=none",
)
SMALL_UNET = ("model.channels=16",)
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "default": SMALL_UNET,
    "simple": (*SMALL_UNET, "objective=simple"),
    "hybrid": (*SMALL_UNET, "objective=hybrid"),
    "eps_linear": (
        *SMALL_UNET,
        "parameterization=eps",
        "schedule=linear",
        "objective=simple",
        "variance=fixed_large",
    ),
    "x0_sigmoid": (*SMALL_UNET, "parameterization=x0", "schedule=sigmoid", "schedule.num_steps=100"),
    "linear_logsnr": (*SMALL_UNET, "schedule=linear_logsnr", "variance=fixed_small"),
    "importance": (*SMALL_UNET, "timesteps=importance", "loss=vlb"),
    "min_snr": (*SMALL_UNET, "objective=min_snr", "timesteps=uniform"),
    "conditional": (*SMALL_UNET, "conditional=true", "cond_dropout=0.1"),
    "accumulating": (*SMALL_UNET, "trainer.accumulate_grad_batches=2", "trainer.max_steps=6"),
    "gaussian": ("data=gaussian", "data.n_train=512", "data.n_val=64", "data.n_test=64", "model.width=32"),
    "mixture": (
        "data=gaussian_mixture",
        "data.n_train=512",
        "data.n_val=64",
        "data.n_test=64",
        "model.width=32",
    ),
}
UNTIMED = ("seconds", "per_second", "duration")


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to run; default: this one")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    arguments = parser.parse_args()
    found = {name: trace(arguments.root.resolve(), CONFIGURATIONS[name]) for name in progress(arguments.only)}
    if arguments.action == "record":
        arguments.file.write_text(json.dumps(found, indent=1) + "\n")
        return
    recorded = json.loads(arguments.file.read_text())
    lines = [
        f"{name}: {line}"
        for name in arguments.only
        for line in differences(recorded[name], json.loads(json.dumps(found[name])))
    ]
    print("\n".join(lines) or f"{len(found)} configurations: every number is equal")
    sys.exit(bool(lines))


def progress(names: Iterable[str]) -> Iterable[str]:
    """The names, each printed before it is used."""
    for name in names:
        print(name, file=sys.stderr, flush=True)
        yield name


def trace(root: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """The results of one configuration."""
    with tempfile.TemporaryDirectory() as scratch:
        run, evaluation, samples = (Path(scratch) / name for name in ("run", "evaluation", "samples"))
        checkpoint = f"checkpoint={run / 'checkpoints' / 'last.ckpt'}"
        command(root, "train.py", *SHORT, *options, f"hydra.run.dir={run}")
        command(root, "evaluate.py", checkpoint, "max_examples=32", f"hydra.run.dir={evaluation}")
        command(
            root, "sample.py", checkpoint, "n=4", "format=npz", "sampler.steps=5", f"hydra.run.dir={samples}"
        )
        state = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        summary = json.loads((run / "summary.json").read_text())
        return {
            "metrics": {name: column(rows, name) for name in rows[0] if is_a_result(name)},
            "summary": {name: value for name, value in summary.items() if is_number(name, value)},
            "bound.parquet": table(run / "bound.parquet"),
            "weights": digest(state["state_dict"].values()),
            "raw weights": digest(state.get("current_model_state", {}).values()),
            "evaluation": table(evaluation / "examples.parquet") | table(evaluation / "bound.parquet"),
            "samples": digest([torch.from_numpy(load_samples(samples))]),
        }


def command(root: Path, script: str, *options: str) -> None:
    """Run a command of the checkout.

    Raises:
        SystemExit: with its output, when it fails.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root / "src"),
        "WANDB_MODE": "offline",
    }
    ended = subprocess.run(
        [sys.executable, str(root / script), *options],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        sys.exit(f"{script} {' '.join(options)}\n{ended.stdout}{ended.stderr}")


def load_samples(folder: Path) -> Any:
    """Samples of samples.npz, (n, ...)."""
    import numpy as np

    with np.load(folder / "samples.npz") as file:
        return file["samples"]


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    """The non-empty entries of a column, as text."""
    return [row[name] for row in rows if row[name]]


def table(path: Path) -> dict[str, str]:
    """A digest of each result column of a parquet file."""
    if not path.is_file():
        return {}
    content = pq.read_table(path)
    return {
        f"{path.stem}.{name}": hashlib.sha256(repr(content[name].to_pylist()).encode()).hexdigest()[:16]
        for name in content.column_names
        if is_a_result(name)
    }


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """A digest of tensors, independent of their names."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def is_a_result(name: str) -> bool:
    """Whether a column is a result and not a time."""
    return not any(word in name for word in UNTIMED)


def is_number(name: str, value: object) -> bool:
    """Whether an entry of the summary is a numerical result."""
    return isinstance(value, int | float) and is_a_result(name)


def differences(recorded: dict[str, Any], found: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each entry that is not equal."""
    lines = []
    for name in recorded.keys() | found.keys():
        before, after = recorded.get(name), found.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before} is now {after}")
    return sorted(lines)


if __name__ == "__main__":
    main()
