"""Sweeps by real processes: side by side, interrupted, with a worker that is killed, and searches."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
NO_TIME = "tests/cli/swept_jobs.py"
SIDE_BY_SIDE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 500) -> tuple[int, str, str]:
    """Exit code and output; nothing of its session is left running."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def wait_for(*paths: Path, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, f"there is no {paths}"
        time.sleep(0.1)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def attempts(folder: Path, job: int) -> list[str]:
    return (folder / str(job) / "attempts.txt").read_text().splitlines()


def orphans(folder: Path) -> list[str]:
    """Processes whose environment or command line names the sweep."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in known and int(process.name) != os.getpid():
            found.append(known.decode(errors="replace"))
    return found


def test_failed_or_killed_job_does_not_stop_others(tmp_path):
    process = start(NO_TIME, "-m", *SIDE_BY_SIDE, "seed=1,13,99,2,3", f"hydra.sweep.dir={tmp_path}")
    code, out, err = finish(process)
    assert code == 1
    assert "job 1 (seed=13) failed: an unlucky seed\n" in err
    assert "job 2 (seed=99) failed: its process died: " in err
    assert err.endswith(f"error: 2 of 5 jobs did not finish: {tmp_path / 'sweep.csv'}\n")
    assert {row["job"] for row in rows(tmp_path) if row["status"] == "finished"} == {"0", "3", "4"}
    assert out.count(" finished in ") == 3
    assert "what a job prints" not in out
    assert (tmp_path / "0/output.txt").read_text() == "what a job prints\n"


def test_parallel_jobs_share_the_cores(tmp_path):
    finish(start(NO_TIME, "-m", *SIDE_BY_SIDE, "seed=1,2", f"hydra.sweep.dir={tmp_path}"))
    share = max((os.cpu_count() or 1) // 2, 1)
    assert [attempts(tmp_path, job) for job in (0, 1)] == [[f"resume=None threads={share}"]] * 2


def test_interrupted_sweep_resumes_unfinished_jobs(tmp_path):
    marked = {"SWEEP": str(tmp_path)}  # by which its processes are known
    process = start(NO_TIME, "-m", *SIDE_BY_SIDE, "seed=1,50,2,51,3", f"hydra.sweep.dir={tmp_path}", **marked)
    wait_for(*(tmp_path / job / "attempts.txt" for job in ("1", "3")), tmp_path / "2/job.json")
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err) == (130, "interrupted\n")
    statuses = {row["job"]: row["status"] for row in rows(tmp_path)}
    assert statuses == {
        "0": "finished", "1": "interrupted", "2": "finished", "3": "interrupted", "4": "not begun"
    }  # fmt: skip
    assert orphans(tmp_path) == []

    code, out, err = finish(start(NO_TIME, f"resume={tmp_path}"))
    assert (code, err) == (0, "")
    assert out.count("was finished before, and is skipped") == 2
    assert {row["status"] for row in rows(tmp_path)} == {"finished"}
    assert [len(attempts(tmp_path, job)) for job in range(5)] == [1, 2, 1, 2, 1]
    assert attempts(tmp_path, 3)[1].startswith(f"resume={tmp_path / '3'} ")


def test_interrupted_search_resumes_until_n_trials(tmp_path):
    space = ("optimizer.lr=tag(log,interval(1e-5,1e-1))", "loss=choice(simple,vlb)", "seed=1")
    search = ("sweep=optuna", "hydra.sweeper.n_trials=6", f"hydra.sweep.dir={tmp_path}")
    process = start(NO_TIME, "-m", *search, *space, WAITS_AT_TRIAL="3")
    wait_for(tmp_path / "3/attempts.txt")
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130

    def states():
        study = optuna.load_study(study_name="nelbo", storage=f"sqlite:///{tmp_path}/optuna.db")
        return [trial.state.name for trial in study.trials], study

    assert states()[0] == ["COMPLETE"] * 3 + ["RUNNING"]
    code, _, err = finish(start(NO_TIME, f"resume={tmp_path}"))
    assert (code, err) == (0, "")
    found, study = states()
    assert found == ["COMPLETE"] * 6
    assert [len(attempts(tmp_path, job)) for job in range(6)] == [1, 1, 1, 2, 1, 1]
    for trial in study.trials:
        status = json.loads((tmp_path / str(trial.number) / "job.json").read_text())
        assert status["objective"] == pytest.approx(trial.value)
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 6, "a trial was drawn twice"

    code, _, _ = finish(start(NO_TIME, f"resume={tmp_path}", "hydra.sweeper.n_trials=7"))
    assert (code, states()[0]) == (0, ["COMPLETE"] * 7)


def test_failed_trial_does_not_stop_the_search(tmp_path):
    search = ("sweep=optuna", "hydra.sweeper.n_trials=4", f"hydra.sweep.dir={tmp_path}")
    code, _, err = finish(start(NO_TIME, "-m", *search, "seed=choice(13)"))
    assert code == 1
    assert err.count("failed: an unlucky seed") == 4
    study = optuna.load_study(study_name="nelbo", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 4


def test_submitit_runs_the_same_sweep(tmp_path):
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    code, _, _ = finish(start(NO_TIME, "-m", *launcher, "seed=1,13", f"hydra.sweep.dir={tmp_path}"))
    assert code == 1
    assert [row["status"] for row in rows(tmp_path)] == ["finished", "failed: an unlucky seed"]


def test_parallel_trainings_have_their_own_folders(tmp_path, tiny):
    """The sweep of the README: its table, its folders, its W&B runs, and one training that is refused."""
    choices = ("schedule=linear,cosine", "loss=simple,vlb,hybrid", "variance=fixed_small")
    process = start("train.py", "-m", *SIDE_BY_SIDE, *tiny, *choices, f"hydra.sweep.dir={tmp_path}")
    code, out, err = finish(process)
    assert code == 1
    assert err.count("the loss Hybrid trains a learned variance") == 2
    table = rows(tmp_path)
    assert [row["status"] for row in table[:4]] == ["finished"] * 4
    bounds = [float(row["test/bpd"]) for row in table[:4]]
    assert bounds == sorted(bounds)
    assert all(float(row["best_val/bpd"]) <= float(row["val/bpd"]) for row in table[:4])
    assert all(row["status"].startswith("failed: the loss Hybrid") for row in table[4:])
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert out.count("schedule=linear loss=vlb") == 1, "one line for each job"
    for row in table[:4]:
        folder = tmp_path / row["job"]
        summary = json.loads((folder / "summary.json").read_text())
        assert float(row["test/bpd"]) == summary["test/bpd"]
        assert json.loads((folder / "job.json").read_text())["objective"] == summary["val/bpd"]
        (run,) = (folder / "wandb").glob("offline-run-*")
        inspect = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", run]
        shown = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=60).stdout
        records = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
        *_, named = (record["run"] for record in records if "run" in record)
        assert named["display_name"] == f"schedule={row['schedule']} loss={row['loss']}"
        assert named["run_group"] == "_".join(tmp_path.parts[-2:])
        assert any("exit" in record for record in records), "it was not ended"


def test_interrupted_parallel_trainings_resume(tmp_path, tiny):
    longer = (
        "trainer.max_steps=300",
        "trainer.val_check_interval=100",
        "logger=none",
        "callbacks.samples=null",
    )
    line = (*SIDE_BY_SIDE, *tiny, *longer, "objective=simple,vlb,min_snr", f"hydra.sweep.dir={tmp_path}")
    process = start("train.py", "-m", *line)
    wait_for(*(tmp_path / job / "checkpoints/last.ckpt" for job in ("0", "1")))
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.count("stopped at step ") == 2, err
    assert [row["status"] for row in rows(tmp_path)].count("interrupted") == 2

    code, _, err = finish(start("train.py", f"resume={tmp_path}"))
    assert code == 0, err
    assert {row["status"] for row in rows(tmp_path)} == {"finished"}
    for job in range(3):
        assert json.loads((tmp_path / str(job) / "summary.json").read_text())["step"] == 300
