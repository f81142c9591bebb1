"""Sweeps with a job that takes no time: the table, failures, and going on with what was left."""

import csv
import json
import os
import shlex
from dataclasses import replace

import cloudpickle
import pytest
from omegaconf import OmegaConf

from nelbo.cli.command import run
from nelbo.cli.overrides import as_typed, quoted
from nelbo.cli.sweep.job import Job
from nelbo.cli.sweep.resume_sweep import add_resumed_sweep
from nelbo.cli.train import train
from nelbo.runs.folder_lock import locked


@pytest.fixture
def sweep(command, tmp_path):
    """Runs ``python <name>.py -m <arguments>`` with a job; the run's ``rows`` are those of sweep.csv."""

    def run(
        *arguments,
        job=lambda config: 1.0,
        folder=tmp_path / "sweep",
        name="train",
        begin=("hydra.mode=MULTIRUN",),
    ):
        where = [f"hydra.sweep.dir={folder}"] if begin else []
        ended = command(*begin, *where, *arguments, job=job, name=name)
        table = folder / "sweep.csv"
        ended.rows = list(csv.DictReader(table.open())) if table.exists() else []
        ended.folder = folder
        return ended

    return run


def unlucky(config):
    if config.seed == 1:
        raise ValueError("an unlucky seed")
    return float(config.seed)


@pytest.mark.slow
def test_failed_job_does_not_stop_others_and_is_named(sweep):
    ended = sweep("seed=0,1,2", "loss=vlb", job=unlucky)
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "job 1 (seed=1) failed: an unlucky seed",
        f"error: 1 of 3 jobs did not finish: {ended.folder / 'sweep.csv'}",
    ]
    assert [(row["job"], row["seed"], row["status"]) for row in ended.rows] == [
        ("0", "0", "finished"),
        ("2", "2", "finished"),
        ("1", "1", "failed: an unlucky seed"),
    ]
    assert "ValueError: an unlucky seed" in (ended.folder / "1/traceback.txt").read_text()
    assert f"resume      python train.py resume={ended.folder}" in ended.out

    tried = []
    again = sweep(f"resume={ended.folder}", job=lambda config: tried.append(config.seed), begin=())
    assert (again.code, tried) == (0, [1])
    assert {row["status"] for row in again.rows} == {"finished"}


@pytest.mark.slow
def test_resumed_sweep_runs_unfinished_jobs_only(sweep):
    attempts = []

    def job(config):
        attempts.append((config.seed, config.resume))
        if config.seed == 1 and len(attempts) == 2:
            raise KeyboardInterrupt
        return 0.0

    first = sweep("seed=0,1,2", "model=mlp", "model.width=8", job=job)
    assert first.code == 130
    statuses = {row["job"]: row["status"] for row in first.rows}
    assert statuses == {"0": "finished", "1": "interrupted", "2": "not begun"}
    written = OmegaConf.load(first.folder / "1/.hydra/config.yaml")

    second = sweep(f"resume={first.folder}", job=job, begin=())
    assert second.code == 0, second.err
    assert attempts == [(0, None), (1, None), (1, str(first.folder / "1")), (2, None)]
    assert "job 0 (seed=0) was finished before, and is skipped" in second.out
    assert {row["status"] for row in second.rows} == {"finished"}
    assert OmegaConf.load(first.folder / "1/.hydra/config.yaml") == written
    assert OmegaConf.load(first.folder / "2/.hydra/config.yaml").model.width == 8


@pytest.mark.slow
def test_job_locked_by_another_process_is_skipped(sweep):
    ended = sweep("seed=0,1", job=unlucky)
    with locked(ended.folder / "1"):
        again = sweep(f"resume={ended.folder}", job=pytest.fail, begin=())
    assert again.code == 1
    assert f"job 1 (seed=1): {ended.folder / '1'} is in use by process {os.getpid()} on " in again.err
    assert [row["status"] for row in again.rows] == ["finished", "interrupted"]


@pytest.mark.slow
def test_the_folder_of_another_sweep_is_refused(sweep):
    first = sweep("seed=0")
    before = (first.folder / "multirun.yaml").read_bytes()
    second = sweep("seed=1")
    assert second.code == 1
    assert f"{first.folder / '0'} holds a job of other options (seed=0): choose another" in second.err
    assert second.err.count("\n") == 1
    assert (first.folder / "multirun.yaml").read_bytes() == before


def test_invalid_options_are_refused_before_any_job(sweep):
    ended = sweep("loss=simple,vbl")
    assert ended.code == 1
    assert "there is no loss=vbl (did you mean vlb?)" in ended.err
    assert not ended.folder.exists()


@pytest.mark.slow
def test_jobs_name_and_group_their_wandb_runs(sweep):
    seen = []
    job = lambda config: seen.append((config.logger.wandb.name, config.logger.wandb.group))  # noqa: E731
    ended = sweep("loss=simple,vlb", "logger.wandb.project=p", job=job)
    group = "_".join(ended.folder.parts[-2:])
    assert seen == [("loss=simple", group), ("loss=vlb", group)]
    named = ended.folder.with_name("named")
    sweep("seed=0,1", "logger.wandb.name=mine", job=job, folder=named)
    assert [name for name, _ in seen[2:]] == ["mine", "mine"]
    (named / "1/job.json").unlink()
    again = sweep(f"resume={named}", job=job, folder=named, begin=())
    assert (again.code, len(seen)) == (0, 5)


@pytest.mark.slow
def test_a_mistake_in_numbers_is_found_in_the_job_of_the_choice(sweep):
    ended = sweep("schedule=linear,cosine", "schedule.num_steps=x")
    assert ended.err.count("schedule.num_steps=x: expected an integer") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_evaluate_and_sample_support_sweeps(name, sweep):
    def job(config):
        if config.seed == 1:
            raise OSError("no such checkpoint")

    ended = sweep("seed=0,1,2", "checkpoint=last.ckpt", job=job, name=name)
    assert ended.code == 1
    assert [row["status"].partition(":")[0] for row in ended.rows] == ["finished", "finished", "failed"]
    again = sweep(f"resume={ended.folder}", job=lambda config: None, name=name, begin=())
    assert again.code == 0


def test_resumed_sweep_keeps_its_options(tmp_path):
    overrides = {
        "task": ["seed=0,1"],
        "hydra": ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.run.dir=y", "hydra/launcher=joblib"],
    }
    written = {"hydra": {"overrides": overrides, "job": {"config_name": "train"}}}
    OmegaConf.save(written, tmp_path / "multirun.yaml")
    resume = f"resume={tmp_path}"
    where = f"hydra.sweep.dir='{tmp_path}'"
    line = add_resumed_sweep([resume, "hydra.launcher.n_jobs=2", "--config-dir", "mine"], "train")
    options = ["seed=0,1", "hydra/launcher=joblib", where, "hydra.launcher.n_jobs=2"]
    assert line == ["--multirun", "--config-dir", "mine", *options]
    with pytest.raises(ValueError, match=r"seed=2: .* only hydra options and trust= can be given"):
        add_resumed_sweep([resume, "seed=2"], "train")
    with pytest.raises(ValueError, match=r"is a sweep of train\.py: resume it there"):
        add_resumed_sweep([resume], "evaluate")
    assert add_resumed_sweep(["resume=elsewhere", "seed=2"], "train") == ["resume=elsewhere", "seed=2"]


def test_a_sweep_is_resumed_in_a_folder_whose_name_needs_quotes(tmp_path):
    folder = tmp_path / "it's a = b"
    folder.mkdir()
    written = {"hydra": {"overrides": {"task": ["seed=0,1"], "hydra": []}, "job": {"config_name": "train"}}}
    OmegaConf.save(written, folder / "multirun.yaml")
    [typed] = shlex.split(as_typed("resume", str(folder)))
    line = add_resumed_sweep([typed], "train")
    assert line == ["--multirun", "seed=0,1", f"hydra.sweep.dir={quoted(str(folder))}"]


@pytest.mark.slow
def test_a_failure_with_a_name_that_is_not_utf8_does_not_stop_the_sweep(sweep):
    def fail(config):
        raise ValueError("broken \udcff.png")

    ended = sweep("seed=0,1", job=fail)
    assert ended.code == 1
    assert [row["status"] for row in ended.rows] == [r"failed: broken \udcff.png"] * 2
    assert r"broken \udcff.png" in (ended.folder / "0/traceback.txt").read_text("utf-8")


@pytest.mark.parametrize("text", ["it's = 1, ${here}", "a b", "schedule=linear loss=vlb", r"c:\d"])
def test_string_option_reaches_configuration_unchanged(text, compose):
    assert compose(f"data.root={quoted(text)}", "data=mnist").data.root == text


@pytest.mark.slow
def test_job_with_summary_is_finished(sweep):
    first = sweep("seed=0,1")
    (first.folder / "1/job.json").unlink()
    summary = {"step": 2, "val/bpd": 1.5, "train_seconds": 3.0}
    (first.folder / "1/summary.json").write_text(json.dumps(summary))
    seen = []
    second = sweep(f"resume={first.folder}", job=lambda config: seen.append(config.seed), begin=())
    assert (second.code, seen) == (0, [])


def test_a_launcher_can_pickle_the_task(monkeypatch):
    """joblib and submitit do, with all that it names."""
    tasks = []
    monkeypatch.setattr("hydra.main", lambda **_: lambda task: lambda: tasks.append(task))
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which is put back afterwards
    run("train", train)
    assert cloudpickle.loads(cloudpickle.dumps(tasks[0]))


def test_trust_is_not_an_option_that_makes_another_job(tmp_path):
    """A sweep that needs it says so, and is then resumed with it."""
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(["model._target_=mine.Net", "seed=0"], tmp_path / ".hydra/overrides.yaml")
    job = Job("train", ("model._target_=mine.Net", "trust=mine.Net", "seed=0"), {}, "0", tmp_path)
    job.check_same_options()
    with pytest.raises(ValueError, match="holds a job of other options"):
        replace(job, overrides=("model._target_=mine.Net", "seed=1")).check_same_options()
