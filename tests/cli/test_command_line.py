"""The command line as a person meets it: real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nelbo.cli import entry, started
from nelbo.cli.command import run

ROOT = Path(__file__).parents[2]
# shown at exit: which of the libraries that take seconds were imported
SPY = """
import atexit, sys
atexit.register(lambda: print("imported", sorted({"torch", "lightning", "wandb"} & set(sys.modules))))
"""


def python(*arguments, spy=None, **environment):
    env = {**os.environ, **environment}
    if spy is not None:
        (spy / "sitecustomize.py").write_text(SPY)
        env["PYTHONPATH"] = str(spy)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["--help"], 0, "schedule: adaptive, cosine, edm, learned_ends, learned_net, linear"),
        pytest.param(
            ["--cfg", "job"],
            0,
            "_target_: nelbo.diffusion.schedules.cosine.CosineSchedule",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["schedule.num_step=3"],
            1,
            "error: there is no option num_step in schedule",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["help", "cfg", "misspelt"],
)
def test_commands_without_torch_do_not_import_it(arguments, code, shown, tmp_path):
    ended = python("train.py", f"hydra.run.dir={tmp_path}", *arguments, spy=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert shown in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "imported []"


def test_ctrl_c_during_the_imports_is_one_line(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "import_module", interrupted)
    with pytest.raises(SystemExit) as ended:
        entry.start("train")
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "subcommand", "options", "shown"),
    [
        ("train.py", None, (), "python train.py"),
        ("/usr/bin/nelbo", "evaluate", ("--config-dir", "conf"), "nelbo evaluate --config-dir conf"),
        ("/lib/nelbo/__main__.py", "sample", (), "python -m nelbo sample"),
    ],
)
def test_help_shows_the_command_that_was_typed(program, subcommand, options, shown, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, *options, "--help"])
    monkeypatch.setenv(started.VARIABLE, "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which is put back afterwards
    with pytest.raises(SystemExit, check=lambda ended: not ended.code):
        run(subcommand or "train", lambda config: None, subcommand)
    out = capsys.readouterr().out
    assert out.count(f"\n  {shown} ") >= 3
    assert f"\n{shown} --cfg job prints" in out
    assert "\nsampler: ancestral, ddim, dpm_solver_pp, edm, heun\n" in out
    assert max(len(line) for line in out.splitlines() if shown not in line) <= 80


@pytest.mark.slow
def test_command_line_shows_traceback_when_requested(tmp_path):
    ended = python("train.py", f"hydra.run.dir={tmp_path}", "schedule.num_step=3", HYDRA_FULL_ERROR="1")
    assert ended.returncode == 1
    assert "Traceback (most recent call last)" in ended.stderr
    assert "Key 'num_step' is not in struct" in ended.stderr


def test_importing_the_package_is_cheap(tmp_path):
    ended = python("-c", "import nelbo", spy=tmp_path)
    assert ended.stdout == "imported []\n", ended.stderr


@pytest.mark.slow
def test_the_libraries_import_together():
    ended = python("-c", "import nelbo, lightning, torchvision, torch_fidelity; print('ok')")
    assert ended.stdout == "ok\n", ended.stderr


def test_tests_package_is_this_checkout():
    assert Path(sys.modules[__name__].__file__).is_relative_to(ROOT / "tests")
