"""How the ranks of a job are started, and which of their errors is reported."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nelbo.cli import launch as module
from nelbo.cli.error_message import HOST_UNREACHABLE, LOST_CONNECTION, NO_ANSWER, communication_error
from nelbo.cli.launch import (
    ProcessError,
    launch_ranks,
    needs_launch,
    report_error,
)
from nelbo.cli.started import VARIABLE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def started(script: Path) -> str:
    return json.dumps({"words": [str(script)], "shown": f"python {script}"})


@pytest.fixture
def run_ranks(monkeypatch, tmp_path):
    """Launches a script of a few lines on two ranks."""
    monkeypatch.setenv(VARIABLE, started(tmp_path / "script.py"))
    monkeypatch.setattr(module, "_options_of_this_job", list)

    def run(lines: str) -> float | None:
        (tmp_path / "script.py").write_text(PREAMBLE + textwrap.dedent(lines))
        return launch_ranks(2, lambda: "; last checkpoint: none")

    return run


PREAMBLE = "import os, signal, sys, time\nfrom nelbo.cli.launch import report_error, write_result\n"
PREAMBLE += "rank = int(os.environ['RANK'])\n"


@pytest.mark.slow
def test_the_result_is_that_of_the_first_rank(run_ranks):
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    assert run_ranks("write_result(1.5 + rank)") == 1.5
    assert run_ranks("write_result(None)") is None
    assert dict(os.environ) == environment
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)", "process 1 of 2 ended with signal 9"),
        ("if rank == 1: sys.exit(7)\ntime.sleep(60)", "process 1 of 2 ended with exit code 7"),
        ("report_error('no memory'); sys.exit(1)", "no memory"),
        (
            "if rank == 1:\n report_error('no memory'); sys.exit(1)\ntime.sleep(60)",
            "no memory (process 1 of 2)",
        ),
        (
            f"if rank == 0:\n report_error({LOST_CONNECTION!r}); sys.exit(1)\nos.kill(os.getpid(), 9)",
            "process 1 of 2 ended with signal 9",
        ),
        (
            f"if rank == 0:\n report_error({NO_ANSWER!r}); sys.exit(1)\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
            NO_ANSWER,
        ),
    ],
    ids=["killed", "exit code", "both fail", "one fails", "one dies, one loses the connection", "one hangs"],
)
def test_the_rank_that_fails_first_is_named(run_ranks, lines, message):
    with pytest.raises(ProcessError) as caught:
        run_ranks(lines)
    said = str(caught.value)
    if message == "no memory":  # of both ranks: either may be the first
        said = said.replace(" (process 1 of 2)", "")
    assert said == f"{message}; last checkpoint: none"


@pytest.mark.slow
def test_no_rank_outlives_its_agent(tmp_path):
    (tmp_path / "script.py").write_text(
        f"import os, time\nfrom nelbo.cli.launch import end_with_agent\nend_with_agent()\n"
        f"open(f'{tmp_path}/rank' + os.environ['RANK'], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    agent = (
        "from nelbo.cli import launch as module\nmodule._options_of_this_job = list\nmodule.launch_ranks(2)\n"
    )
    environment = {**os.environ, VARIABLE: started(tmp_path / "script.py")}
    process = subprocess.Popen([sys.executable, "-c", agent], env=environment)
    files = [tmp_path / "rank0", tmp_path / "rank1"]
    until = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < until:
        time.sleep(0.1)
    ranks = [int(file.read_text()) for file in files]
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in ranks) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in ranks)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        ("RuntimeError [gloo/transport/tcp/pair.cc:537] Connection reset by peer", LOST_CONNECTION),
        ("RuntimeError [gloo/pair.cc:1] Timed out waiting 60000ms for recv operation", NO_ANSWER),
        ("RuntimeError [gloo/pair.cc:553] Read error [10.0.0.2]:5: Connection timed out", HOST_UNREACHABLE),
        ("RuntimeError [gloo/pair.cc:553] Read error [10.0.0.2]:5: No route to host", HOST_UNREACHABLE),
        ("RuntimeError Application timeout caused pair closure", NO_ANSWER),
        ("DistStoreError Timed out after 61 seconds waiting for clients. 1/2 clients joined.", NO_ANSWER),
        ("ValueError bad data", None),
    ],
)
def test_errors_of_the_communication_are_explained(error, meaning):
    assert communication_error(error) == meaning


def test_too_many_processes_are_refused(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert not needs_launch(1)
    assert needs_launch(module.MAX_PROCESSES)
    with pytest.raises(ValueError, match="9 devices are too many for a machine of 2 cores"):
        needs_launch(9)


def test_no_ranks_are_launched_under_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not needs_launch(2)


def test_a_rank_passes_its_error_to_the_agent(monkeypatch, tmp_path, capsys):
    report_error("seen")
    assert capsys.readouterr().err == "error: seen\n"
    monkeypatch.setenv(module.RESULT, str(tmp_path / "result.json"))
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report_error("kept")
    assert capsys.readouterr().err == ""
    assert '"message": "kept"' in (tmp_path / "error.json").read_text()


@pytest.mark.slow
def test_rank_receives_the_options_of_its_job(command, tmp_path):
    """Of this job of the multirun, whatever is in the names."""
    found = []

    def job(config) -> None:
        found.append(module._options_of_this_job())

    sweep = tmp_path / "it's, a sweep"
    quoted = str(sweep).replace("'", "\\'")
    ended = command("seed=1,2", "logger.wandb.name='a, b'", f"hydra.sweep.dir='{quoted}'", "-m", job=job)
    assert ended.code == 0, ended.err
    assert len(found) == 2
    overrides = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(found[1][1:])}
    assert overrides["seed"] == 2
    assert str(overrides["logger.wandb.name"]) == "a, b"
    assert str(overrides["hydra.run.dir"]) == str(sweep / "1")
    assert (overrides["hydra.mode"], overrides["hydra.job.num"]) == ("RUN", 1)
