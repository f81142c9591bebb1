"""One process at a time writes into a run folder, and the next one is refused by name."""

import hashlib
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from nelbo.cli import claim_folder as used_folder
from nelbo.cli.overrides import quoted
from nelbo.runs import run_options
from nelbo.runs.folder_lock import HOLDER, LOCK, FolderInUseError, check_not_in_use, locked


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """As much of a run as decides who may write into it."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_bytes(b"weights")
    (folder / "metrics.csv").write_text("step,train/loss\n1,2.0\n")
    OmegaConf.save({"trainer": {"max_steps": 6}}, folder / ".hydra/config.yaml")
    OmegaConf.save([], folder / ".hydra/overrides.yaml")
    return folder


SECOND = {
    "the same command": ("train", ()),
    "resume": ("train", ("resume={folder}",)),
    "a job that is requeued twice": ("train", ("resume=auto",)),
    "an evaluation": ("evaluate", ("checkpoint=any.ckpt",)),
    "samples": ("sample", ("checkpoint=any.ckpt",)),
    "a sweep": ("train", ("hydra.mode=MULTIRUN", "seed=1", "hydra.sweep.dir={folder}")),
}


@pytest.mark.parametrize("second", SECOND)
def test_a_folder_in_use_is_refused_and_unchanged(second, run_folder, command):
    name, arguments = SECOND[second]
    with locked(run_folder):
        before = hashes(run_folder)
        ended = command(
            *(argument.format(folder=run_folder) for argument in arguments), name=name, folder=run_folder
        )
        assert hashes(run_folder) == before
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert f"{run_folder} is in use by process {os.getpid()} on {os.uname().nodename} (" in ended.err
    assert "resume=" not in ended.err


def test_a_finished_run_is_refused_and_unchanged(run_folder, command):
    before = hashes(run_folder)
    ended = command(folder=run_folder)
    assert hashes(run_folder) == before
    assert f"or resume it: resume={run_folder}" in ended.err


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(tell, b"x")
            signal.pause()
    os.read(ready, 1)
    with pytest.raises(FolderInUseError, match=f"in use by process {child} on"):
        check_not_in_use(tmp_path)
    unfinished = tmp_path / f"report.html.{child}.tmp"
    unfinished.touch()
    of_a_living_process = tmp_path / f"summary.json.{os.getpid()}.tmp"
    of_a_living_process.touch()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        assert not unfinished.exists()
        assert of_a_living_process.exists()
        assert (tmp_path / HOLDER).exists()
    assert not (tmp_path / HOLDER).exists()


def test_a_folder_that_was_only_locked_is_as_it_was(tmp_path):
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["hydra.run.dir", "hydra.sweep.dir"])
def test_folders_with_a_default_name_are_distinct(option, tmp_path):
    configs = [OmegaConf.create({"hydra": {"run": {}, "sweep": {}}}) for _ in range(3)]
    with used_folder.claimed_folders:
        for config in configs:
            used_folder._claim_new(tmp_path / "runs/12-00-00", config, option)
        assert [Path(OmegaConf.select(config, option)).name for config in configs] == [
            "12-00-00",
            "12-00-00-1",
            "12-00-00-2",
        ]
        for config in configs:
            with pytest.raises(FolderInUseError):
                check_not_in_use(Path(OmegaConf.select(config, option)))
    assert not any((tmp_path / "runs").iterdir())  # nothing was written into them


WRONG = {
    "hydra.run.dir=''": "hydra.run.dir=: expected the name of a folder",
    "run_dir=elsewhere": "run_dir=elsewhere: a run has one folder, which is set by hydra.run.dir",
    f"hydra.run.dir={quoted('runs/${oc.env:HOME}')}": (
        "hydra.run.dir=runs/${oc.env:HOME}: the name of a folder must not contain ${"
    ),
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_place_is_refused_before_anything_is_written(argument, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command(argument, job=pytest.fail)
    assert (ended.code, ended.err) == (1, f"error: {WRONG[argument]}\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_hydra_files_are_written_whole(command, tmp_path, monkeypatch):
    written = []

    def fail(content, **options):
        written.extend(path.name for path in tmp_path.glob("run/.hydra/*"))
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(run_options, "yaml", SimpleNamespace(safe_dump=fail))
        ended = command("seed=3", job=pytest.fail)
    assert ended.code == 1
    assert f"cannot write {ended.folder}/.hydra/config.yaml (no space left)" in ended.err
    assert not any(ended.folder.glob(".hydra/*"))
    assert [re.sub("[0-9a-f]{16}", "RANDOM", name) for name in written] == [
        f"config.yaml.RANDOM.{os.getpid()}.tmp"
    ]
    ended = command("seed=3", job=lambda config: None)
    assert ended.code == 0, ended.err
    assert OmegaConf.load(ended.folder / ".hydra/overrides.yaml") == ["seed=3"]
    assert OmegaConf.load(ended.folder / ".hydra/config.yaml").seed == 3
    assert OmegaConf.load(ended.folder / ".hydra/hydra.yaml").hydra.job.config_name == "train"
