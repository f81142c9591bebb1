"""A W&B run never asks, never hangs and never stops the training."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from nelbo.dashboard import wandb_run

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


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_costs_one_warning(tmp_path):
    """A key is configured, nothing listens: the run goes on, offline."""
    code = "from nelbo.dashboard import wandb_run; wandb_run.SECONDS_TO_WAIT_FOR_THE_SERVER = 3\n" + START
    environment = {**os.environ, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "1"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("offline")
    assert ended.stderr.count("uploads it later\n") == 1
    assert "Traceback" not in ended.stderr


@pytest.fixture
def modes(monkeypatch):
    """Starts no run: remembers the mode that each was to have; there is no server."""
    asked = []

    def init(*, mode, **options):
        asked.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no answer\nand more lines")

    monkeypatch.setattr(wandb_run.wandb, "init", init)
    monkeypatch.setattr(wandb_run, "WandbLogger", lambda **options: options)
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


def test_a_configured_key_is_tried_and_a_silent_server_survived(modes, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    with pytest.warns(UserWarning, match="W&B: no answer; the run is kept offline"):
        wandb_run.wandb_logger(str(tmp_path), project="nelbo")
    assert modes == ["online", "offline"]


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
