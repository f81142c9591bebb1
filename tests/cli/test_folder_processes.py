"""Real processes on one run folder, and real processes that start at the same time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nelbo.runs.folder_lock import HOLDER
from tests.cli.run_processes import signal_all
from tests.runs.test_folder_lock import hashes

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENDLESS = (
    "trainer.max_steps=1000000",
    "trainer.val_check_interval=1000000",
    "lr_schedule=constant",
    "logger=none",
)
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.fixture
def stopped(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a command, and stops it (SIGSTOP) when it has written a file: by default a checkpoint."""
    processes, folders = [], []

    def start(
        folder: Path, *arguments: str, script: str = "train.py", written: str = "checkpoints/last.ckpt"
    ) -> subprocess.Popen:
        path = folder / written
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = subprocess.Popen([sys.executable, script, *arguments], cwd=ROOT, start_new_session=True)
        processes.append(process)
        until = time.monotonic() + 300
        while not (path.exists() and path.stat().st_mtime_ns != before) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        signal_all(folder, signal.SIGSTOP)
        folders.append(folder)
        return process

    yield start
    for folder, process in zip(folders, processes, strict=False):
        signal_all(folder, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("first", ["begun", "resumed", "of two processes"])
def test_a_second_process_is_refused_and_changes_nothing(first, stopped, command, tiny, tmp_path):
    folder = tmp_path / "run"
    options = (*tiny, *ENDLESS, *(TWO if first == "of two processes" else ()))
    process = stopped(folder, *options, f"hydra.run.dir={folder}")
    if first == "resumed":
        signal_all(folder, signal.SIGKILL)
        process.wait()
        process = stopped(folder, f"resume={folder}")
    before = hashes(folder)
    seconds = {
        "the same command": ("train", options),
        "resume": ("train", (f"resume={folder}",)),
        "resume=auto": ("train", (*options, "resume=auto")),
        "sample": ("sample", (f"checkpoint={folder}/checkpoints/last.ckpt",)),
    }
    for name, (script, arguments) in seconds.items():
        ended = command(*arguments, name=script, folder=folder)
        assert ended.code == 1, name
        assert ended.err.startswith(f"error: {folder} is in use by process {process.pid} on "), name
        assert ended.err.count("\n") == 1, name
        assert hashes(folder) == before, name


LONG = {
    "evaluate": ("evaluate.py", "hydra.run.dir", ("estimator=full",)),
    "sample": ("sample.py", "hydra.run.dir", ("n=100000", "sampler.steps=1000")),
    "sweep of evaluations": (
        "evaluate.py",
        "hydra.sweep.dir",
        ("hydra.mode=MULTIRUN", "estimator=full", "weights=ema,raw"),
    ),
}


@pytest.mark.parametrize("command_line", LONG)
def test_a_second_evaluation_sample_or_sweep_is_refused(
    command_line, stopped, command, finished_run, tmp_path
):
    script, option, arguments = LONG[command_line]
    folder = tmp_path / "first"
    arguments = (*arguments, f"checkpoint={finished_run.folder}/checkpoints/last.ckpt", f"{option}={folder}")
    process = stopped(folder, *arguments, script=script, written=HOLDER)
    before = hashes(folder)
    ended = command(*arguments, name=script.removesuffix(".py"), folder=tmp_path / "unused")
    assert ended.code == 1
    assert ended.err.startswith(f"error: {folder} is in use by process {process.pid} on ")
    assert ended.err.count("\n") == 1
    assert hashes(folder) == before


def test_commands_that_start_together_have_folders_of_their_own(tiny, tmp_path):
    time.sleep(1 - time.time() % 1)  # not across the end of a second
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "train.py", *tiny, "logger=none", f"seed={seed}"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for seed in range(3)
    ]
    assert [process.wait(600) for process in processes] == [0, 0, 0]
    folders = [path.parent for path in tmp_path.glob("outputs/*/*/summary.json")]
    configured = [OmegaConf.load(folder / ".hydra/config.yaml").seed for folder in folders]
    trained = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["nelbo"]["config"]["seed"]
        for folder in folders
    ]
    assert sorted(configured) == [0, 1, 2]
    assert trained == configured


@pytest.mark.parametrize("nth", range(4))
def test_kill_between_hydra_files_leaves_no_partial_file(nth, command, monkeypatch):
    """The files in .hydra, and the one that names the holder of the lock before them."""
    replace, calls = Path.replace, []

    def killed(path, target):
        calls.append(target)
        if len(calls) == nth + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", killed)
        command("seed=3", job=lambda config: None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again = command("seed=3", job=lambda config: None)
    assert again.code == 0, again.err
    assert OmegaConf.load(again.folder / ".hydra/config.yaml").seed == 3
    assert OmegaConf.load(again.folder / ".hydra/overrides.yaml") == ["seed=3"]
    assert sorted(path.name for path in (again.folder / ".hydra").iterdir()) == [
        "config.yaml", "hydra.yaml", "overrides.yaml",
    ]  # fmt: skip
