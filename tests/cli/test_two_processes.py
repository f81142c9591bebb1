"""Two processes on the CPU are one run: one folder, one W&B run, the same losses as one process."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from nelbo import torch_file
from nelbo.compose.trained import load_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def run(*command: str | Path) -> str:
    """What a command prints."""
    ended = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def train(folder: Path, *arguments: str) -> list[dict[str, float]]:
    command = [sys.executable, "train.py", f"hydra.run.dir={folder}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("variational bound") == 1
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


# batches of evaluation that two processes cannot share evenly, learned timesteps, two batches a step, dropout
UNEVEN = (
    "model.dropout=0.1",
    "timesteps=importance", "schedule.num_steps=8", "timesteps.history=1", "data.eval_batch_size=34",
    "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("alone") / "one"
    return folder, train(folder, *tiny, *UNEVEN, "logger=none")


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def runs(request, one, tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp(request.param) / "two"
    trainer = (f"trainer={request.param}", "trainer.devices=2", "trainer.accelerator=cpu")
    two = train(folder, *tiny, *UNEVEN, *trainer)
    return SimpleNamespace(one=one[0], two=folder, alone=one[1], shared=two)


def test_metrics_of_two_processes_agree_with_one(runs):
    for alone, shared in zip(runs.alone, runs.shared, strict=True):
        assert alone.keys() == shared.keys()
        for name in alone.keys() - {"throughput/images_per_second"}:
            # L_T is 1e-9, and rounding
            assert shared[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-7), name


def test_metrics_with_the_default_options_agree(tmp_path):
    """With the U-Net and its dropout."""
    short = (
        "trainer.max_steps=8", "trainer.val_check_interval=4", "trainer.log_every_n_steps=1", "logger=none",
        "callbacks.samples=null", "estimator@test_estimator=stratified",
    )  # fmt: skip
    alone, shared = train(tmp_path / "one", *short), train(tmp_path / "two", *short, *DDP)
    for one, two in zip(alone, shared, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"throughput/images_per_second"}:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7), name


def test_bound_table_counts_examples_of_both_processes(runs):
    one, two = (pq.read_table(path / "bound.parquet").to_pylist() for path in (runs.one, runs.two))
    keys = ("step", "split", "t", "count")
    assert [[row[k] for k in keys] for row in one] == [[row[k] for k in keys] for row in two]
    for alone, shared in zip(one, two, strict=True):
        assert shared["sum"] == pytest.approx(alone["sum"], rel=1e-4)


def test_two_processes_write_one_folder_and_one_wandb_run(runs):
    assert [path.name for path in runs.two.parent.iterdir()] == ["two"]
    assert len(list((runs.two / "wandb").glob("offline-run-*"))) == 1
    kept = {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert {path.name for path in (runs.two / "checkpoints").iterdir()} == kept


def test_summaries_of_one_and_two_processes_agree(runs):
    one, two = (json.loads((path / "summary.json").read_text()) for path in (runs.one, runs.two))
    assert one.keys() == two.keys()
    assert two["ledger"]["num_evaluations"] == one["ledger"]["num_evaluations"]
    assert two["test/bpd"] == pytest.approx(one["test/bpd"], rel=1e-4)


def test_checkpoints_of_one_and_two_processes_agree(runs):
    one, two = (
        torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (runs.one, runs.two)
    )
    for kind in ("state_dict", "current_model_state"):
        assert one[kind].keys() == two[kind].keys()
        for name, weight in one[kind].items():
            assert torch.allclose(two[kind][name], weight, rtol=1e-4, atol=1e-6), name
    moments, shared = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, two))
    assert moments.keys() == shared.keys()
    assert all(shared[i]["exp_avg"].shape == moments[i]["exp_avg"].shape for i in moments)


def test_the_checkpoint_is_evaluated_like_any_other(runs, tmp_path):
    found = []
    for path in (runs.one, runs.two):
        folder = tmp_path / path.name
        run("evaluate.py", f"checkpoint={path}/checkpoints/last.ckpt", "device=cpu", "estimator=full",
            "max_examples=20", f"hydra.run.dir={folder}")  # fmt: skip
        found.append(json.loads((folder / "evaluation.json").read_text())["test/bpd"])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_the_checkpoint_has_a_checksum_that_is_verified(runs, tmp_path):
    checkpoints = runs.two / "checkpoints"
    for name in ("last", "previous", "best"):
        whole = (checkpoints / f"{name}.ckpt").read_bytes()
        assert torch_file.PREFIX in whole[-torch_file.COMMENT_SIZE :]
        load_model(checkpoints / f"{name}.ckpt")
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (tmp_path / "flipped.ckpt").write_bytes(flipped)
        with pytest.raises(ValueError, match="its content does not match its checksum"):
            load_model(tmp_path / "flipped.ckpt")


def test_multirun_starts_processes_for_each_training(tmp_path, tiny):
    out = run("train.py", "-m", *tiny, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2,1",
              "logger.wandb.name='job ${hydra:job.num}'", f"hydra.sweep.dir={tmp_path}")  # fmt: skip
    assert out.count("variational bound") == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        "0",
        "1",
        "multirun.yaml",
        "sweep.csv",
        "report.html",
    }
    assert all(len(list((tmp_path / job / "wandb").glob("offline-run-*"))) == 1 for job in "01")
    bpd = [json.loads((tmp_path / job / "summary.json").read_text())["test/bpd"] for job in "01"]
    assert bpd[1] == pytest.approx(bpd[0], rel=1e-5)


def test_multirun_starts_processes_for_each_evaluation(tmp_path, finished_run):
    run("evaluate.py", "-m", f"checkpoint={finished_run.folder}/checkpoints/last.ckpt", "estimator=full",
        "max_examples=6", "devices=2", "device=cpu", "steps=2,3", f"hydra.sweep.dir={tmp_path}")  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        "0",
        "1",
        "multirun.yaml",
        "sweep.csv",
        "report.html",
    }
    ledgers = [json.loads((tmp_path / job / "evaluation.json").read_text())["ledger"] for job in "01"]
    assert [ledger["K"] for ledger in ledgers] == [2, 3]


def test_torchrun_writes_one_run(tmp_path, tiny):
    out = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py", *tiny, *DDP,
              "logger=none", f"hydra.run.dir={tmp_path}/${{now:%H-%M-%S-%f}}")  # fmt: skip
    assert out.count("variational bound") == 1
    [folder] = tmp_path.iterdir()
    assert (folder / "summary.json").exists()
    assert (folder / ".hydra/config.yaml").exists()


@pytest.mark.parametrize("processes", [2, 1])
@pytest.mark.parametrize("resume", ["resume={}", "resume=auto hydra.run.dir={}"])
def test_a_run_is_resumed_on_two_processes(processes, resume, tmp_path, tiny):
    begun = ("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={processes}", "trainer.max_steps=4")
    run("train.py", *tiny, *begun, "logger=none", f"hydra.run.dir={tmp_path}")
    run("train.py", *resume.format(tmp_path).split(), "trainer.devices=2", "trainer.max_steps=8")
    assert json.loads((tmp_path / "summary.json").read_text())["step"] == 8
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
