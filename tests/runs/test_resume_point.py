"""Rewinding a run: nothing is removed before everything is validated, and no file of others."""

import pytest
import torch

from nelbo import torch_file
from nelbo.atomic_file import DamagedFileError
from nelbo.runs import ema_snapshots, history, resume_point
from nelbo.runs.ema_snapshots import EMASnapshot
from nelbo.runs.resume_point import ResumePoint

STATE = {"validated_at": 1, "data": {}}
WHOLE = {"rows": 0, "sha256": None}


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (
        "summary.json",
        "report.html",
        "keep.tmp",
        "checkpoints/keep.1.tmp.txt",
        "checkpoints/a.tmp",
    ):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"global_step": 1},
        {"global_step": "1", "nelbo": STATE},
        {"global_step": 1, "nelbo": []},
        {"global_step": 1, "nelbo": {}},
        {"global_step": 1, "nelbo": {"validated_at": 1}},
        {"global_step": 1, "nelbo": STATE},
        *(
            {"global_step": 1, "nelbo": STATE, "history": damaged}
            for damaged in (
                [1],
                {"metrics.csv": WHOLE},
                {"metrics.csv": {"rows": 1}, "bound.parquet": WHOLE},
                {"metrics.csv": {"rows": "1", "sha256": None}, "bound.parquet": WHOLE},
                {"metrics.csv": WHOLE, "bound.parquet": WHOLE | {"more": 1}},
            )
        ),
    ],
)
def test_a_checkpoint_with_other_content_is_refused_by_name(content, tmp_path):
    torch_file.save(content, tmp_path / "last.ckpt")
    with pytest.raises(DamagedFileError, match=r"last\.ckpt"):
        ResumePoint.read(tmp_path / "last.ckpt")


def test_the_summary_of_a_run_that_cannot_be_rewound_is_kept(run_dir, monkeypatch):
    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "restore", fails)
    with pytest.raises(OSError, match="No space"):
        resume_point.rewind(run_dir, None)
    assert (run_dir / "summary.json").exists()
    assert (run_dir / "report.html").exists()


def test_snapshots_after_the_checkpoint_are_removed(run_dir):
    for step in (2, 4):
        ema_snapshots.write(run_dir, EMASnapshot(step, [0.1], [{"a": torch.zeros(1)}]))
    content = {"global_step": 3, "history": {"metrics.csv": WHOLE, "bound.parquet": WHOLE}}
    resume_point.rewind(run_dir, ResumePoint(run_dir / "checkpoints/last.ckpt", content))
    assert [snapshot.step for snapshot in ema_snapshots.read_before(run_dir, 10)] == [2]
    resume_point.rewind(run_dir, None)
    assert not list(ema_snapshots.read_before(run_dir, 10))


def test_only_temporary_files_of_ours_are_removed(run_dir):
    for name in ("summary.json.1.tmp", "checkpoints/last.ab12.17.tmp"):
        (run_dir / name).touch()
    resume_point.rewind(run_dir, None)
    left = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*")}
    assert left == {"checkpoints", "keep.tmp", "checkpoints/keep.1.tmp.txt", "checkpoints/a.tmp"}
