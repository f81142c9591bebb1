"""What a run leaves behind: every file, and what stands in it."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from nelbo.data.digits import Digits
from nelbo.reports.numbers import plus_minus

STEPS, BATCH, EVERY = 6, 32, 3
SPLIT_SIZE, VAL_EVALUATIONS, TEST_EVALUATIONS = 180, 3, 4


@pytest.fixture(scope="module")
def folder(finished_run) -> Path:
    return finished_run.folder


@pytest.fixture(scope="module")
def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def bound(folder) -> list[dict]:
    return pq.read_table(folder / "bound.parquet").to_pylist()


@pytest.fixture(scope="module")
def metrics(folder) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def wandb_records(folder) -> list[dict]:
    (run,) = (folder / "wandb").glob("offline-run-*")
    inspect = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", run]
    shown = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in shown.splitlines() if line.startswith("{")]


def test_every_file_is_there_and_nothing_unfinished(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        "summary.json",
        "metrics.csv",
        "bound.parquet",
        "samples/step_00000003.png",
        "samples/step_00000006.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    kept = {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == kept
    assert not [name for name in names if name.endswith(".tmp")]
    tables = {"summary.json", "data_record.json", "metrics.csv", "bound.parquet", "examples.parquet"}
    expected = {".hydra", ".lock", "samples", "checkpoints", "wandb", *tables}
    assert {path.name for path in folder.iterdir()} - {"report.html", "hparams.yaml"} == expected


def test_the_configuration_says_what_was_run(folder):
    config = OmegaConf.load(folder / ".hydra/config.yaml")
    assert config.trainer.max_steps == STEPS
    assert config.model.width == 16
    assert config.schedule.num_steps == 1000


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_parts_add_up_to_the_bound(summary, split):
    parts = sum(summary[f"{split}/{part}"] for part in ("L_0", "L_t", "L_T"))
    assert parts == pytest.approx(summary[f"{split}/bpd"], rel=1e-5)
    shares = [value for name, value in summary.items() if name.startswith(f"{split}/share/")]
    assert len(shares) == 5
    assert sum(shares) == pytest.approx(1.0, rel=1e-5)
    assert all(summary[f"{split}/{part}_stderr"] >= 0 for part in ("bpd", "L_0", "L_t", "L_T"))


def test_the_ledger_says_what_was_measured(folder, summary):
    variance = OmegaConf.load(folder / ".hydra/config.yaml").variance
    ledger = summary["ledger"]
    assert {name: value for name, value in ledger.items() if name not in ("stderr", "logsnr_min")} == {
        "data": "Digits",
        "fingerprint": Digits().fingerprint("test"),
        "conditional": False,
        "split": "test",
        "num_examples": SPLIT_SIZE,
        "dims": 64,
        "levels": 17,
        "decoder": "discretized Gaussian, 17 levels, exact CDF",
        "schedule": "CosineSchedule",
        "T": 1000,
        "K": 1000,
        "timesteps": "1..1000",
        "logsnr_max": pytest.approx(-2 * math.log(1 / 16)),
        "variance": variance._target_.rpartition(".")[2],
        "first_step": variance.first_step,
        "clip": None,
        "weights": "ema",
        "precision": "float32",
        "estimator": f"stratified, {TEST_EVALUATIONS} evaluations per example, control variate",
        "seed": 0,
        "num_evaluations": SPLIT_SIZE * TEST_EVALUATIONS,
    }
    bits = ledger["stderr"] / (64 * math.log(2))
    assert bits == pytest.approx(summary["test/bpd_stderr"], rel=1e-5)
    assert summary["step"] == STEPS


def test_training_rows_count_every_example_once(bound):
    train = [row for row in bound if row["split"] == "train"]
    for step in (EVERY, STEPS):
        assert sum(row["count"] for row in train if row["step"] == step) == BATCH * EVERY
    assert {row["step"] for row in train} == {EVERY, STEPS}


@pytest.mark.parametrize(("split", "evaluations"), [("val", VAL_EVALUATIONS), ("test", TEST_EVALUATIONS)])
def test_evaluation_rows_count_every_evaluation_once(bound, split, evaluations):
    rows = [row for row in bound if row["split"] == split]
    for step in {row["step"] for row in rows}:
        count = sum(row["count"] for row in rows if row["step"] == step)
        assert count == SPLIT_SIZE * evaluations


def test_rows_are_sums_over_timesteps_of_the_chain(bound):
    assert all(1 <= row["t"] <= 1000 for row in bound)
    for row in bound:
        assert row["sum_of_squares"] * row["count"] >= row["sum"] ** 2 * (1 - 1e-9)
    val = [row for row in bound if row["split"] == "val" and row["step"] == EVERY]
    assert len({row["t"] for row in val}) == len(val)


def test_the_bound_follows_from_the_rows(bound, summary):
    """Up to the control variate, which the rows are without."""
    rows = [row for row in bound if row["split"] == "test"]
    first = [row for row in rows if row["t"] == 1]
    mean = sum(row["sum"] for row in first) / sum(row["count"] for row in first)
    assert mean / (64 * math.log(2)) == pytest.approx(
        summary["test/L_0"], abs=3.0 * summary["test/L_0_stderr"]
    )


def test_metrics_name_what_the_design_names(metrics):
    names = set().union(*metrics)
    assert names >= {
        "train/loss",
        "train/bpd",
        "train/L_0",
        "train/L_t",
        "train/L_T",
        "val/bpd",
        "val/L_0",
        "val/L_t",
        "val/L_T",
        "val/bpd_stderr",
        "test/bpd",
        "throughput/images_per_second",
        "step",
    }


def test_training_is_logged_as_often_as_it_was_asked_for(metrics):
    rows = [row for row in metrics if "train/bpd" in row]
    assert len(rows) == STEPS / 2
    for row in rows:
        parts = row["train/L_0"] + row["train/L_t"] + row["train/L_T"]
        assert parts == pytest.approx(row["train/bpd"], rel=1e-5)
        # loss=vlb is the bound without its prior, in nats per dimension
        assert row["train/loss"] / math.log(2) == pytest.approx(parts - row["train/L_T"], rel=1e-5)
        assert row["throughput/images_per_second"] > 0


def test_rows_have_the_number_of_completed_steps(metrics):
    splits = ("train", "val", "test")
    steps = {split: [row["step"] for row in metrics if f"{split}/bpd" in row] for split in splits}
    assert steps == {"train": [2, 4, 6], "val": [3, 6], "test": [6]}


def test_epochs_are_whole_numbers_in_the_file_and_not_in_the_summary(folder, summary):
    with (folder / "metrics.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} <= {"0", "1"}
    assert "epoch" not in summary


def test_the_learning_rate_of_a_step_is_logged(metrics):
    rates = [row["train/lr"] for row in metrics if "train/lr" in row]
    cosine = [0.002 * 0.5 * (1 + math.cos(math.pi * n / STEPS)) for n in (1, 3, 5)]
    assert rates == pytest.approx(cosine, rel=1e-6)


def test_the_summary_agrees_with_the_last_metrics(metrics, summary):
    for name in ("val/bpd", "test/bpd", "val/L_0"):
        last = [row[name] for row in metrics if name in row][-1]
        assert last == pytest.approx(summary[name], rel=1e-6)


def test_samples_are_a_grid_of_enlarged_images(folder):
    with Image.open(folder / "samples/step_00000006.png") as grid:
        assert grid.size == (2 * (8 * 4 + 4) + 4,) * 2  # 2 x 2 images, four times their size


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoints_load_without_trusting_their_code(folder, name):
    checkpoint = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    assert checkpoint["global_step"] in ((STEPS,) if name == "last" else (EVERY, STEPS))
    assert checkpoint["nelbo"]["config"]["schedule"]["num_steps"] == 1000
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_the_best_checkpoint_is_that_of_the_lowest_bound(folder, metrics):
    bounds = [row["val/bpd"] for row in metrics if "val/bpd" in row][:2]
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["global_step"]
    assert best == (EVERY, STEPS)[bounds.index(min(bounds))]


def test_the_terminal_shows_the_table_and_where_to_look(finished_run, summary):
    assert "variational bound, bits/dim" in finished_run.out
    for row in ("L_0  reconstruction", "L_t  denoising", "L_T  prior", "total"):
        assert row in finished_run.out
    assert f" {plus_minus(summary['test/L_0'], summary['test/L_0_stderr'])} " in finished_run.out
    assert str(finished_run.folder / "checkpoints/last.ckpt") in finished_run.out
    assert "wandb leet" in finished_run.out
    assert finished_run.out.count("val/bpd") == 2  # a line for each validation during training


def test_wandb_has_the_scalars_the_chart_and_the_images(wandb_records, summary):
    history, rows = {}, []
    for record in wandb_records:
        history |= record.get("history", {}).get("item", {})
        rows += [record["history"]["item"]] if "history" in record else []
    assert [row for row in rows if "trainer/global_step" not in row] == []
    for part in ("bpd", "L_0", "L_t", "L_T", "share/L_0", "share/t_2_10"):
        assert history[f"val/{part}"] == pytest.approx(summary[f"val/{part}"], rel=1e-6)
    assert history["train/bpd"] > 0
    assert history["samples._type"] == "image-file"
    for split in ("val", "test"):
        assert history[f"{split}/L_t_against_t_table._type"] == "table-file"
        assert history[f"{split}/L_t_against_t._type"] == "plotly-file"


def test_the_chart_holds_the_rows_of_the_table(folder, bound):
    charts = (folder / "wandb").glob("offline-run-*/files/media/table/test/L_t_against_t_table_*.json")
    (content,) = (json.loads(chart.read_text()) for chart in charts)
    assert content["columns"] == ["t", "log10_t", "L_t", "stderr", "low", "high"]
    rows = {row["t"]: row["sum"] / row["count"] for row in bound if row["split"] == "test"}
    assert [row[0] for row in content["data"]] == sorted(rows)
    for t, _, mean, *_ in content["data"]:
        assert mean == pytest.approx(rows[t] / (64 * math.log(2)), rel=1e-9)
