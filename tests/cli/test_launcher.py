"""What other processes are started with, and what is made of their end."""

import os
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch.distributed import DistStoreError

from nelbo.cli import launcher as module
from nelbo.cli.launcher import LAST_WORDS, Launcher, ProcessError, say


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Lets a launcher start scripts of a few lines in place of a training."""

    def make(*lines: str, describe=str) -> Launcher:
        launcher = Launcher()
        monkeypatch.setattr(
            module,
            "_command_of_this_job",
            lambda script: ([sys.executable, "-c", "\n".join(lines)], str(tmp_path)),
        )
        launcher.start(2, "train.py", describe)
        return launcher

    return make


LOST = RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer")
HUNG = DistStoreError("Timed out after 61 seconds waiting for clients. 1/2 clients joined.")
NO_ANSWER = "no answer from the other processes for as long as trainer.strategy.timeout allows,"
SAYS = f"import os, pathlib, sys; pathlib.Path(os.environ[{LAST_WORDS!r}]).write_text"


def test_the_environment_is_as_it_was(start):
    before = dict(os.environ)
    with start("import os; assert os.environ['LOCAL_RANK'] == '1'"):
        assert os.environ["LOCAL_RANK"] == "0"
        assert os.environ["WORLD_SIZE"] == "2"
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", LOST, "process 1 of 2 ended with signal 9 at step 3"),
        ("import sys; sys.exit(7)", None, "process 1 of 2 ended with exit code 7 at step 3"),
        (f"{SAYS}('out of memory'); sys.exit(1)", LOST, "process 1 of 2: out of memory at step 3"),
        (f"{SAYS}('gloo: no peer'); sys.exit(1)", ValueError("bad data"), "bad data"),
        (f"{SAYS}('bad data'); sys.exit(1)", ValueError("bad data"), "bad data"),
        ("pass", LOST, "lost the other processes at step 3"),
        ("pass", HUNG, f"{NO_ANSWER} at step 3"),
    ],
    ids=[
        "killed",
        "failed",
        "failed with a reason",
        "this one failed",
        "both failed",
        "stopped by a signal in the test",
        "hung at the rendezvous",
    ],
)
def test_the_one_that_failed_is_named(start, script, error, said):
    def job() -> None:
        with start(script, describe=lambda: " at step 3") as launcher:
            launcher.others[0].wait(30)
            if error is not None:
                raise error

    with pytest.raises((ProcessError, ValueError)) as caught:
        job()
    assert str(caught.value) == said


def test_no_process_outlives_the_job(start):
    processes = []

    def job() -> None:
        with start("import time; time.sleep(600)") as launcher:
            processes.extend(launcher.others)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert processes[0].returncode == -9


def test_a_process_that_was_started_tells_the_first(monkeypatch, tmp_path, capsys):
    say("error: seen")
    assert capsys.readouterr().err == "error: seen\n"
    monkeypatch.setenv(LAST_WORDS, str(tmp_path / "words"))
    say("error: kept")
    assert (capsys.readouterr().err, (tmp_path / "words").read_text()) == ("", "kept")


def test_the_command_is_that_of_the_job(command, tmp_path):
    """Of this job of the multirun, whatever is in the names."""
    found = []

    def job(config) -> None:
        found.append(module._command_of_this_job("train.py"))

    sweep = tmp_path / "it's, a sweep"
    quoted = str(sweep).replace("'", "\\'")
    ended = command("seed=1,2", "logger.wandb.name='a, b'", f"hydra.sweep.dir='{quoted}'", "-m", job=job)
    assert ended.code == 0, ended.err
    assert len(found) == 2
    arguments, folder = found[1]
    assert folder == str(Path.cwd())
    overrides = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(arguments[3:])}
    assert overrides["seed"] == 2
    assert str(overrides["logger.wandb.name"]) == "a, b"
    assert str(overrides["hydra.run.dir"]) == str(sweep / "1")
    assert (overrides["hydra.mode"], overrides["hydra.job.num"]) == ("RUN", 1)
