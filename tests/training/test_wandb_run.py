"""A W&B run never prompts, never hangs and never stops the training."""

import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb

from nelbo.cli.sweep.run_job import separate_wandb_run
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import unit_of
from nelbo.reports.bound_figure import bound_figure
from nelbo.training.loggers import wandb_guard, wandb_run
from nelbo.training.loggers.media import BoundChart

START = """
import sys
from pathlib import Path
from nelbo.training.loggers.media import finish
from nelbo.training.loggers.wandb_run import wandb_logger
for job in range(int(sys.argv[2])):
    folder = Path(sys.argv[1], str(job))
    folder.mkdir()
    logger = wandb_logger(str(folder), project="nelbo")
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
    assert len(list(tmp_path.glob("*/wandb/offline-run-*"))) == 2


@pytest.mark.slow
def test_there_is_no_prompt_at_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    ended = start(tmp_path, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("offline")


@pytest.fixture
def modes(monkeypatch):
    """Records the mode of each run instead of starting it; there is no server."""
    asked = []

    def init(*, mode, **options):
        asked.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no answer\nand more lines")

        folder = f"{options['dir']}/wandb/run-1/files"
        return SimpleNamespace(dir=folder, define_metric=lambda *_, **__: None)

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


def test_with_a_key_a_server_that_does_not_answer_means_offline(modes, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    wandb_run.wandb_logger(str(tmp_path), project="nelbo")
    assert modes == ["online", "offline"]
    assert capsys.readouterr().err == (
        "warning: W&B: no answer; the run continues offline; "
        f"`wandb sync {tmp_path}/wandb/run-1` uploads it later\n"
    )


class LostRun:
    """A run with a dead service process."""

    dir = "run/wandb/run-1/files"
    calls = 0

    def define_metric(self, *_, **__):
        pass

    def log(self, record):
        self.calls += 1
        raise ConnectionResetError("Connection lost")


def test_a_failed_run_gives_one_warning_and_is_disabled(monkeypatch, capsys):
    monkeypatch.setattr(wandb_guard, "_forward_first_warning", lambda warn: None)
    run = LostRun()
    logger = wandb_guard.GuardedWandbLogger("run", run)
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step)
        logger._log(lambda run: {"chart": 1}, step)
    assert run.calls == 1
    assert capsys.readouterr().err == (
        "warning: W&B: ConnectionResetError: Connection lost; nothing more is logged there; "
        "`wandb sync run/wandb/run-1` uploads it later\n"
    )


def test_an_error_of_nelbo_is_raised(monkeypatch):
    monkeypatch.setattr(wandb_guard, "_forward_first_warning", lambda warn: None)
    with pytest.raises(KeyError):
        wandb_guard.GuardedWandbLogger("run", LostRun())._log(lambda run: {}["chart"], 0)


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


class RecordedRun:
    """A run that records what is logged."""

    dir = "run/wandb/run-1/files"
    name = None
    tags = ()

    def __init__(self):
        self.defined: list[tuple[str, dict]] = []
        self.rows: list[dict] = []
        self.config = SimpleNamespace(update=lambda *_, **__: None)

    def define_metric(self, name, **options):
        self.defined.append((name, options))

    def log(self, row):
        self.rows.append(row)


@pytest.fixture
def recorded(monkeypatch) -> RecordedRun:
    monkeypatch.setattr(wandb_guard, "_forward_first_warning", lambda warn: None)
    return RecordedRun()


def test_everything_is_plotted_against_the_training_step(recorded):
    logger = wandb_guard.GuardedWandbLogger("run", recorded)
    logger.log_metrics({"val/bpd": 1.0}, 49)
    logger._log(lambda run: {"samples": "image"}, 49)
    step = {"step_metric": "trainer/global_step", "step_sync": True}
    assert recorded.defined == [("trainer/global_step", {}), ("*", step)]
    assert [row["trainer/global_step"] for row in recorded.rows] == [49, 49]


def test_standard_errors_are_logged_without_panels_of_their_own(recorded):
    logger = wandb_guard.GuardedWandbLogger("run", recorded)
    for step in (1, 2):
        logger.log_metrics({"val/bpd": 1.0, "val/bpd_stderr": 0.1, "val/L_0_stderr_data_set": 0.1}, step)
    hidden = [name for name, options in recorded.defined if options.get("hidden")]
    assert hidden == ["val/L_0_stderr_data_set", "val/bpd_stderr"]
    assert all("val/bpd_stderr" in row for row in recorded.rows)


CHOSEN = {
    "data": {"_target_": "nelbo.data.digits.Digits"},
    "schedule": {"_target_": "nelbo.diffusion.schedules.cosine.CosineSchedule"},
    "loss": {"_target_": "mine.Loss"},
    "seed": 0,
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("tagged", [True, False])
def test_a_run_is_named_and_tagged_by_its_choices_unless_the_user_did(recorded, named, tagged):
    logger = wandb_guard.GuardedWandbLogger("run", recorded, named=named, tagged=tagged)
    logger.log_hyperparams(CHOSEN)
    assert recorded.name == (None if named else "Digits CosineSchedule Loss")
    assert recorded.tags == (() if tagged else ("Digits", "CosineSchedule", "Loss"))


@pytest.mark.parametrize(
    ("options", "environment", "named", "tagged"),
    [
        ({}, {}, False, False),
        ({"name": "mine", "tags": ["first"]}, {}, True, True),
        ({}, {"WANDB_NAME": "mine", "WANDB_TAGS": "first"}, True, True),
    ],
)
def test_names_and_tags_of_the_user_are_kept(
    modes, monkeypatch, tmp_path, options, environment, named, tagged
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logger = wandb_run.wandb_logger(str(tmp_path), project="nelbo", **options)
    assert (logger._named, logger._tagged) == (named, tagged)


def test_the_table_has_no_error_for_a_single_draw():
    sums = torch.tensor([[2.0, 1.0, 0.0], [6.0, 3.0, 0.0], [20.0, 9.0, 0.0]], dtype=torch.float64)
    unknown = torch.full((3,), math.nan, dtype=torch.float64)
    table = StepTable(torch.tensor([1, 10, 100]), *sums, unknown, unknown)
    rows = BoundChart("val", unit_of(1, None), table, {}).rows()
    assert rows == [[1, 0.0, 3.0, 1.0, 2.0, 4.0], [10, 1.0, 3.0, None, None, None]]


def test_the_figure_has_logarithmic_axes_and_a_band():
    T = 200
    count = torch.full((T,), 20.0, dtype=torch.float64)
    mean = torch.linspace(3, 0.001, T, dtype=torch.float64)
    unknown = torch.full_like(count, math.nan)
    squares = count * mean.square() * 2
    table = StepTable(torch.arange(1, T + 1), count, count * mean, squares, unknown, unknown)
    figure = bound_figure("val", table, unit_of(1, None))
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    band, line = (trace for trace in figure.data if trace.mode != "markers")
    assert band.fill == "toself"
    assert len(band.y) == 2 * len(line.y)
    assert all(high > value for high, value in zip(band.y, line.y, strict=False))


def test_jobs_of_a_sweep_do_not_share_a_run_of_the_environment(monkeypatch):
    for name in ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP"):
        monkeypatch.setenv(name, "shared")
    separate_wandb_run()
    assert [name for name in os.environ if os.environ[name] == "shared"] == ["WANDB_RUN_GROUP"]
