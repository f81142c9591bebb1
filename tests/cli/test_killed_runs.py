"""A run that was killed, at whatever moment, and resumed ends as if nothing had happened, to the last bit."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from nelbo.atomic_file import read_json

ROOT = Path(__file__).parents[2]

# All that has a state: dropout, learned importance, an odd number of batches in an epoch that share optimizer
# steps two by two, validations and logging out of step with each other and with checkpoints.
STATEFUL = (
    "model.dropout=0.2",
    "timesteps=importance",
    "schedule.num_steps=8",
    "timesteps.history=1",
    "data.batch_size=256",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_steps=10",
    "trainer.val_check_interval=5",
    "trainer.log_every_n_steps=3",
    "checkpoint_every=2",
    "logger=none",
)
MODULE = "nelbo.training.module:DiffusionModule"
MOMENTS = {
    "before the first checkpoint": (f"{MODULE}.training_step", 2),
    "in a validation": (f"{MODULE}.validation_step", 2),
    "in the validation after the last step": (f"{MODULE}.validation_step", 4),
    "when half a checkpoint is written": ("torch:save", 3),
    "when a checkpoint is about to take its place": ("nelbo.training.checkpoint_io:sync", 3),
    "between an optimizer step and its average": ("nelbo.training.callbacks.ema:EMA.on_train_batch_end", 11),
    "in the test": (f"{MODULE}.test_step", 1),
}
OF_THE_CLOCK = ("throughput/images_per_second", "train_seconds")


def everything(folder: Path) -> dict[str, Any]:
    """What a run leaves behind, less what its speed decides."""
    with (folder / "metrics.csv").open() as file:
        metrics = [{k: v for k, v in row.items() if k not in OF_THE_CLOCK} for row in csv.DictReader(file)]
    summary = read_json(folder / "summary.json")
    del summary["files"]["metrics.csv"]  # throughput is in it
    return {
        "metrics": metrics,
        "summary": {name: value for name, value in summary.items() if name not in OF_THE_CLOCK},
        "bound": pq.read_table(folder / "bound.parquet").to_pydict(),
        "examples": pq.read_table(folder / "examples.parquet").to_pydict(),
        "samples": {path.name: path.read_bytes() for path in (folder / "samples").iterdir()},
        "last": state(folder / "checkpoints/last.ckpt"),
        "best": state(folder / "checkpoints/best.ckpt"),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


def state(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    del content["nelbo"]["config"]["run_dir"], content["loops"]
    content["nelbo"]["reported"].pop(OF_THE_CLOCK[0])
    content.get("history", {}).get("metrics.csv", {}).pop("sha256", None)  # throughput is in it
    return {name: value for name, value in flat(content) if "Stopwatch" not in name and "folder" not in name}


def flat(content: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(content, torch.Tensor):
        return [(name, content.numpy().tobytes())]
    if isinstance(content, dict):
        return [pair for key, value in content.items() for pair in flat(value, f"{name}.{key}")]
    if isinstance(content, list):
        return [pair for i, value in enumerate(content) for pair in flat(value, f"{name}.{i}")]
    return [(name, content)] if str(content).find("/") < 0 else []


def assert_same(folder: Path, reference: Path, moment: str = "") -> None:
    one, other = everything(folder), everything(reference)
    for part in one:
        assert one[part] == other[part], f"{part}, {moment}"


# what is called in the course of a run, and how often at least (by batch, by step or by validation)
CALLED = (
    (f"{MODULE}.training_step", 10),
    (f"{MODULE}.validation_step", 2),
    (f"{MODULE}.test_step", 1),
    ("torch:save", 5),
    ("nelbo.training.checkpoint_io:sync", 5),
    ("nelbo.training.callbacks.ema:EMA.on_train_batch_end", 10),
    ("nelbo.runs.metrics_file:MetricsFile.log_metrics", 5),
    ("nelbo.runs.bound_table:append", 3),
)
KINDS = {
    "plain": ("trainer.accumulate_grad_batches=1",),
    "conditional": ("trainer.accumulate_grad_batches=1", "conditional=true", "cond_dropout=0.2"),
    "accumulating": ("trainer.accumulate_grad_batches=3",),  # windows that cross the ends of epochs
}
EACH = int(os.environ.get("NELBO_INTERRUPTIONS", "1"))  # of each signal and kind: 9 are 81 in all


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_run_equals_uninterrupted_run_after_resuming(kind, tmp_path, tiny):
    chance = random.Random(kind)
    moments = []
    for _ in range(EACH):
        for number in ("SIGTERM", "SIGKILL", "SIGINT"):
            function, most = chance.choice(CALLED)
            moments.append((function, chance.randint(1, most), number))
    codes = run_and_resume(tmp_path, moments, *tiny, *STATEFUL, *KINDS[kind])
    assert codes[0] == 0
    for n, moment in enumerate(moments):
        assert codes[1 + 2 * n] != 0, moment
        assert codes[2 + 2 * n] == 0, moment
        assert_same(tmp_path / str(n), tmp_path / "whole", f"{kind}, {moment}")


def run_and_resume(folder: Path, moments: list, *options: str) -> list[int]:
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, script, folder, json.dumps(moments), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ended(tmp_path, tiny) -> tuple[Path, dict[str, int]]:
    """The folder of a run that was left alone and of those that were not, and how each of them ended."""
    folder = tmp_path / "killed"
    folder.mkdir()
    codes = run_and_resume(folder, [*MOMENTS.values()], *tiny, *STATEFUL)
    names = ["whole", *(f"{name}{then}" for name in MOMENTS for then in ("", ", resumed"))]
    return folder, dict(zip(names, codes, strict=True))


@pytest.mark.slow
def test_killed_run_equals_uninterrupted_run_after_resuming(ended):
    folder, codes = ended
    assert codes.pop("whole") == 0
    assert codes == {
        f"{moment}{then}": code for moment in MOMENTS for then, code in (("", -9), (", resumed", 0))
    }
    for number, moment in enumerate(MOMENTS):
        assert_same(folder / str(number), folder / "whole", moment)
