"""A W&B run never asks, never hangs and never stops the training."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from nelbo.dashboard import wandb_guard, wandb_run

START = """
import sys
from nelbo.dashboard.wandb_run import finish, wandb_logger
for _ in range(int(sys.argv[2])):
    logger = wandb_logger(sys.argv[1], project="nelbo")
    logger.experiment.log({"x": 1.0})
    print("offline" if logger.experiment.settings._offline else "online", logger.experiment.id)
    finish([logger])
"""


def start(folder: Path, times: int = 1, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", START, str(folder), str(times)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.slow
def test_without_a_key_it_is_offline_and_every_job_has_a_run_of_its_own(tmp_path):
    ended = start(tmp_path, times=2, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["offline", "offline"]
    assert len({line.split()[1] for line in lines}) == 2
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.slow
def test_at_a_terminal_it_does_not_ask_either(tmp_path):
    ours, theirs = pty.openpty()
    ended = start(tmp_path, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("offline")


@pytest.fixture
def modes(monkeypatch):
    """Starts no run: remembers the mode that each was to have; there is no server."""
    asked = []

    def init(*, mode, **options):
        asked.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no answer\nand more lines")

        return SimpleNamespace(dir=f"{options['dir']}/wandb/run-1/files")

    monkeypatch.setattr(wandb_run.wandb, "init", init)
    monkeypatch.setattr(wandb_run.wandb, "setup", lambda settings: None)
    return asked


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["offline"]),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "key"}, ["offline"]),
        ({"WANDB_MODE": "disabled"}, ["disabled"]),
    ],
)
def test_the_mode(environment, expected, modes, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb_run.wandb_logger(str(tmp_path), project="nelbo")
    assert modes == expected


def test_a_configured_key_is_tried_and_a_silent_server_survived(modes, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    wandb_run.wandb_logger(str(tmp_path), project="nelbo")
    assert modes == ["online", "offline"]
    assert capsys.readouterr().err == (
        "warning: W&B: no answer; the run goes on offline; "
        f"`wandb sync {tmp_path}/wandb/run-1` uploads it later\n"
    )


class LostRun:
    """A run whose own process has died."""

    dir = "run/wandb/run-1/files"
    calls = 0

    def log(self, record):
        self.calls += 1
        raise ConnectionResetError("Connection lost")


def test_a_run_that_fails_is_told_once_and_given_up(monkeypatch, capsys):
    monkeypatch.setattr(wandb_guard, "_tell_warnings", lambda tell: None)
    run = LostRun()
    logger = wandb_guard.GuardedWandbLogger("run", run)
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step)
        logger.log(lambda run: {"chart": 1})
    assert run.calls == 1
    assert capsys.readouterr().err == (
        "warning: W&B: ConnectionResetError: Connection lost; nothing more is logged there; "
        "`wandb sync run/wandb/run-1` uploads it later\n"
    )


def test_a_mistake_of_ours_is_not_taken_for_a_failure(monkeypatch):
    monkeypatch.setattr(wandb_guard, "_tell_warnings", lambda tell: None)
    with pytest.raises(KeyError):
        wandb_guard.GuardedWandbLogger("run", LostRun()).log(lambda run: {}["chart"])


def test_other_ranks_start_no_run(modes, monkeypatch, tmp_path):
    monkeypatch.setattr(wandb_run.rank_zero_only, "rank", 1)
    wandb_run.wandb_logger(str(tmp_path), project="nelbo")
    assert modes == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("machine api.wandb.ai login user password key", True),
        ("machine example.org login user password key", False),
        ("machine machine machine", False),
        (None, False),
    ],
)
def test_a_key_in_the_netrc_file_counts(content, expected, monkeypatch, tmp_path):
    path = tmp_path / "netrc"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    assert wandb_run.has_key() is expected
