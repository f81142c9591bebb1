"""A disk that fills up: one line that names what was being written, and what was whole before stays whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")  # every write to it fails as on a full disk
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_full
@pytest.mark.parametrize(
    "written",
    [
        "metrics.csv",
        pytest.param("samples/step_00000003.png", marks=pytest.mark.slow),
        pytest.param("bound.parquet", marks=pytest.mark.slow),
        pytest.param("summary.json", marks=pytest.mark.slow),
    ],
)
def test_disk_error_is_named_and_last_checkpoint_is_intact(written, command, tiny, tmp_path, monkeypatch):
    run, touch = tmp_path / "run", Path.touch

    def create(path, *arguments, **options):  # of the temporary file
        if path.name.startswith(f"{Path(written).name}."):
            path.symlink_to(FULL)
        else:
            touch(path, *arguments, **options)

    monkeypatch.setattr(Path, "touch", create)
    (run / written).parent.mkdir(parents=True)
    ended = command(*tiny, "logger=none")
    lines = [line for line in ended.err.splitlines() if not line.startswith("stopped at step")]
    assert ended.code == 1
    assert len(lines) == 1, ended.err
    assert lines[0].startswith(
        (f"error: cannot write {run}/{written}", f"error: cannot write to {run}/{written}")
    )
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["global_step"] >= 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Leave so many bytes of the disk, in whole pages."""
    with (folder / "filler").open("wb") as file:
        file.write(bytes(2**20 - leave))


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", f"hydra.run.dir={folder}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["none", "wandb"])
def test_a_small_disk_fills_up_while_training(logger, small_disk, tiny):
    """The checkpoint is what does not fit any more: 100 kB are free, and it grows to about twice that."""
    fill(small_disk, 2**17)
    ended = train(small_disk / "run", *tiny, f"logger={logger}", "model.width=128", "model.depth=2")
    assert ended.returncode == 1, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: cannot write ")
    assert "Traceback" not in ended.stderr
    assert not list((small_disk / "run").rglob("*.tmp"))


@pytest.mark.slow
def test_wandb_on_a_full_disk_does_not_stop_the_training(small_disk, tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (small_disk / "wandb").mkdir()
    (run / "wandb").symlink_to(small_disk / "wandb")
    fill(small_disk, 2**16)
    long = ("trainer.max_steps=300", "trainer.val_check_interval=20", "checkpoint_every=100")
    ended = train(run, *tiny, *long)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("warning: W&B: ")
    assert (run / "summary.json").exists()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 300
