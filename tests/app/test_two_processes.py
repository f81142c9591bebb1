"""Two processes on the CPU are one run: one folder, one W&B run, the same losses as one process."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def train(folder: Path, *arguments: str) -> list[dict[str, float]]:
    command = [sys.executable, "train.py", f"hydra.run.dir={folder}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("variational bound") == 1
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("processes")
    importance = ("timesteps=importance", "schedule.num_steps=8", "timesteps.history=1")
    one = train(folder / "one", *tiny, *importance, "logger=none")
    two = train(
        folder / "two", *tiny, *importance, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
        *[option for option in tiny if option.startswith("trainer.")],
    )  # fmt: skip
    return folder, one, two


def test_the_metrics_are_those_of_one_process(runs):
    _, one, two = runs
    assert len(one) == len(two)
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        for name in alone.keys() - {"throughput/images_per_second"}:
            # L_T is 1e-9, and rounding
            assert shared[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-7), name


def test_the_table_counts_both_processes(runs):
    folder, _, _ = runs
    one, two = (pq.read_table(folder / name / "bound.parquet").to_pylist() for name in ("one", "two"))
    keys = ("step", "split", "t", "count")
    assert [[row[k] for k in keys] for row in one] == [[row[k] for k in keys] for row in two]
    for alone, shared in zip(one, two, strict=True):
        assert shared["sum"] == pytest.approx(alone["sum"], rel=1e-4)


def test_there_is_one_folder_and_one_wandb_run(runs):
    folder, _, _ = runs
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
    assert len(list((folder / "two/wandb").glob("offline-run-*"))) == 1
    kept = {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert {path.name for path in (folder / "two/checkpoints").iterdir()} == kept


def test_the_summaries_agree(runs):
    folder, _, _ = runs
    one, two = (json.loads((folder / name / "summary.json").read_text()) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert two["ledger"]["num_evaluations"] == one["ledger"]["num_evaluations"]
    assert two["test/bpd"] == pytest.approx(one["test/bpd"], rel=1e-4)
