"""A full disk: one line with the name of the file, and earlier files are complete."""

import errno
import subprocess
import sys

import pytest
import torch
from lightning import Trainer

from nelbo.atomic_file import read_json
from nelbo.reports import html as report
from nelbo.runs import bound_table as table
from nelbo.training.callbacks import sample_grid


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def is_told(ended, expected):
    assert ended.code == 1
    assert ended.err.startswith("error: cannot write ")
    assert expected in ended.err
    assert ended.err.count("\n") == 1


def test_a_checkpoint_that_does_not_fit_is_named_and_the_one_before_it_kept(command, tiny, monkeypatch):
    save = Trainer.save_checkpoint

    def save_once(trainer, path, *args, **kwargs):
        if trainer.global_step >= 4:
            path.write_bytes(b"half a checkpoint")
            raise full()
        save(trainer, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", save_once)
    ended = command(*tiny, "logger=none")
    path = ended.folder / "checkpoints/last.ckpt"
    is_told(ended, f"{path} ([Errno 28] No space left on device); the checkpoint before it is kept")
    assert torch.load(path, weights_only=True)["global_step"] == 2
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.slow
def test_torch_does_not_hide_that_the_disk_is_full(tmp_path):
    code = (
        "import resource, signal, sys, torch\n"
        "from nelbo.training.checkpoint_io import DurableCheckpointIO\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n    DurableCheckpointIO().save_checkpoint({'a': torch.zeros(100_000)}, sys.argv[1])\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.ckpt"], capture_output=True, text=True, timeout=300
    )
    assert ended.stdout == "File too large\n", ended.stderr


@pytest.mark.slow
def test_the_table_of_the_bound_is_named(command, tiny, monkeypatch):
    def write_table(data, where, **options):
        where.write(b"half a table")
        raise full()

    monkeypatch.setattr(table.parquet_file.pq, "write_table", write_table)
    ended = command(*tiny, "logger=none")
    is_told(ended, str(ended.folder / "bound.parquet"))
    assert not (ended.folder / "bound.parquet").exists()
    assert not list(ended.folder.glob("*.tmp"))


@pytest.mark.slow
def test_a_report_that_does_not_fit_is_named_and_the_results_are_kept(command, tiny, monkeypatch):
    def cannot_write(*args, **kwargs):
        raise full()

    monkeypatch.setattr(report, "write_report", cannot_write)
    ended = command(*tiny, "logger=none")
    assert ended.code == 1
    assert "the run is finished, but there is no report.html: [Errno 28]" in ended.err
    assert f"make it later with: python -m nelbo report {ended.folder}" in ended.err
    assert ended.err.count("\n") == 1
    assert "variational bound" in ended.out
    summary = read_json(ended.folder / "summary.json")
    best = torch.load(ended.folder / "checkpoints/best.ckpt", weights_only=True)
    (state,) = (state for name, state in best["callbacks"].items() if "BestCheckpoint" in name)
    assert summary["best"] == {"step": best["global_step"], "val/bpd": state["best"]}
    assert state["step"] == best["global_step"]
    monkeypatch.undo()
    again = command(f"resume={ended.folder}")  # what is missing is made
    assert (again.code, again.err) == (0, "")
    assert (ended.folder / "report.html").exists()


@pytest.mark.slow
def test_anything_else_names_the_run_folder(command, tiny, monkeypatch):
    def cannot_write(*args, **kwargs):
        raise full()

    monkeypatch.setattr(sample_grid.images, "grid", cannot_write)
    ended = command(*tiny, "logger=none")
    is_told(ended, f"{ended.folder}: the disk is full")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "named"),
    [("checkpoints", "run already holds a run"), ("samples", "run/samples")],
    ids=["checkpoints", "samples"],
)
def test_a_folder_that_cannot_be_made_is_named(where, named, command, tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / where).write_text("a file in the way")
    ended = command(*tiny, "logger=none")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"{tmp_path}/{named}" in ended.err
