"""Two processes draw the samples of one, and report their quality."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
METRICS = ("fd_pixels", "mmd_pixels", "precision_pixels", "recall_pixels")


def train(folder: Path, cache: Path, *arguments: str) -> list[dict[str, float]]:
    options = (f"hydra.run.dir={folder}", f"callbacks.sample_quality.cache={cache}", "logger=none")
    command = [sys.executable, "train.py", "callbacks=sample_quality", *options, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: float(row[f"val/{name}"]) for name in METRICS} for row in rows if row["val/fd_pixels"]]


def test_quality_of_two_processes_equals_that_of_one(tmp_path, tiny):
    small = (*tiny, "callbacks.sample_quality.num_samples=51", "callbacks.sample_quality.batch_size=8")
    trainer = [option for option in tiny if option.startswith("trainer.")]
    one = train(tmp_path / "one", tmp_path / "cache1", *small)
    two = train(
        tmp_path / "two", tmp_path / "cache2", *small,
        "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", *trainer,
    )  # fmt: skip
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=1e-5)
    ledgers = [
        json.loads((tmp_path / name / "sample_quality.json").read_text())["ledger"] for name in ("one", "two")
    ]
    assert ledgers[0] == ledgers[1]
    # the references were made apart, and one of them by two processes
    assert [len(list((tmp_path / cache).iterdir())) for cache in ("cache1", "cache2")] == [1, 1]
