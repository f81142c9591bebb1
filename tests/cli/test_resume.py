"""python train.py resume=FOLDER: what it goes on with, what it refuses, and how a run stops."""

import csv
import json
import os
import random
import shutil
import signal
import stat
from pathlib import Path

import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf

from nelbo.cli import resume
from nelbo.cli.launch import RESULT
from nelbo.compose import build
from nelbo.runs.metrics_file import MetricsFile, restore
from nelbo.runs.resume_point import ResumePoint, newest_checkpoint
from nelbo.runs.summary import finished_step, is_finished
from nelbo.training.module import DiffusionModule


@pytest.fixture
def signalled(command, tiny, monkeypatch):
    """Trains, and is sent signals in the middle of a step."""

    def run(number: int, *arguments: str, step: int = 3, **options):
        step_of_module = DiffusionModule.training_step

        def with_signal(module, *args):
            if module.trainer.global_step == step:
                os.kill(os.getpid(), number)
            return step_of_module(module, *args)

        with monkeypatch.context() as patch:
            patch.setattr(DiffusionModule, "training_step", with_signal)
            return command(*tiny, "logger=none", *arguments, **options)

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def is_refused(ended, expected: str) -> None:
    assert ended.code == 1
    assert expected in ended.err
    assert ended.err.count("\n") == 1


def make_run(folder: Path, *options: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    OmegaConf.save({"trainer": {"max_steps": 6}}, folder / ".hydra/config.yaml")
    OmegaConf.save([*options], folder / ".hydra/overrides.yaml")
    return folder


@pytest.mark.slow
def test_ctrl_c_stops_after_the_step_and_prints_resume_command(signalled, command):
    stopped = signalled(signal.SIGINT, "resume=auto")  # which begins, for there is nothing
    folder = stopped.folder
    assert stopped.code == 130
    assert "stopping after this step; Ctrl-C again stops at once" in stopped.err
    assert f"stopped at step 4, saved in {folder}/checkpoints/last.ckpt" in stopped.err
    assert f"resume with: python train.py resume={folder}" in stopped.err
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4

    (folder / "checkpoints/last.1.tmp").write_bytes(b"left over")
    with pytest.warns(UserWarning, match=r"at step 4 the learning rate changes from 0\.0005 to 0\.001"):
        longer = command(f"resume={folder}", "trainer.max_steps=8", "trainer.log_every_n_steps=1")
    assert longer.code == 0, longer.err
    assert json.loads((folder / "summary.json").read_text())["step"] == 8
    assert [int(row["step"]) for row in rows(folder) if row["train/loss"]] == [2, 4, 5, 6, 7, 8]
    assert not list(folder.rglob("*.tmp"))
    # what is linked to the number of steps follows it, and the next time as well
    config = OmegaConf.load(folder / ".hydra/config.yaml")
    assert OmegaConf.to_container(config.lr_schedule)["total_steps"] == 8
    assert config.trainer.max_steps == 8

    again = command(f"resume={folder}")
    assert (again.code, again.err) == (0, "")
    assert again.out == f"{folder} is finished, after 8 steps: more with trainer.max_steps=...\n"


@pytest.mark.slow
def test_a_run_with_muon_and_levels_equals_an_uninterrupted_one(signalled, command, tiny, tmp_path):
    options = ("optimizer=muon", "parameterization=categorical", "trainer.max_steps=6")
    whole = command(*tiny, "logger=none", *options, folder=tmp_path / "whole")
    stopped = signalled(signal.SIGTERM, *options)
    assert (whole.code, stopped.code) == (0, 143), whole.err
    assert command(f"resume={stopped.folder}").code == 0
    first, second = (
        torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, stopped)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (whole.folder / "bound.parquet").read_bytes() == (stopped.folder / "bound.parquet").read_bytes()


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(signalled, monkeypatch):
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda *call: (kill(*call), kill(*call)))
    stopped = signalled(signal.SIGINT)
    assert stopped.code == 130
    assert stopped.err.endswith("interrupted\n")
    kept = torch.load(stopped.folder / "checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 3  # the beginning of the step that was broken off


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "result", "code"),
    [
        (signal.SIGTERM, 0, 143),
        (signal.SIGHUP, 0, 129),
        (signal.SIGUSR1, 0, 128 + signal.SIGUSR1),
        (signal.SIGUSR1, 1, 1),
    ],
)
def test_slurm_signals_save_and_requeue(number, result, code, signalled, tmp_path, monkeypatch):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho it said no >&2\nexit {result}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    stopped = signalled(number)
    assert stopped.code == code
    assert (tmp_path / "asked").exists() == (number == signal.SIGUSR1)
    assert ("does not requeue job 77: it said no" in stopped.err) == bool(result)
    assert torch.load(stopped.folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.slow
def test_an_error_before_a_step_saves_and_one_inside_does_not(tiny_run, tmp_path):
    class Fails(Callback):
        def __init__(self, hook: str) -> None:
            setattr(self, hook, self.fail)

        def fail(self, trainer, *args):
            if trainer.global_step == 3:
                raise RuntimeError

    for hook, saved in (("on_before_backward", True), ("on_before_optimizer_step", False)):
        run = tiny_run("checkpoint_every=100", callbacks=[Fails(hook)], folder=tmp_path / hook)
        with pytest.raises(RuntimeError):
            run.fit()
        assert (run.folder / "checkpoints/last.ckpt").exists() == saved


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    last, previous = folder / "checkpoints/last.ckpt", folder / "checkpoints/previous.ckpt"
    assert newest_checkpoint(folder).path == last
    whole = last.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[: len(whole) // 2], whole[:-3], bytes(flipped), b"x" * len(whole)):
        last.write_bytes(damaged)
        with pytest.warns(UserWarning, match=rf"{last} is damaged: resuming from {previous}"):
            point = newest_checkpoint(folder)
        assert point.path == previous
    resume.restore_run(OmegaConf.create(resume.saved_config(folder)), folder, point)
    assert not last.exists()
    assert last.with_suffix(".damaged").exists()
    last.write_bytes(b"")
    previous.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{last} and {previous}: damaged"):
        newest_checkpoint(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["schedule=linear"], "schedule=linear: not allowed with resume=, which accepts"),
        (["data=patches"], "data=patches: "),
        (["optimizer.lr=1"], "optimizer.lr=1: "),
        (["+model.width=3"], "+model.width=3: "),
        (["trainer=gpu"], "trainer=gpu: "),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere: a run is resumed in its folder"),
        (["trainer.max_stepz=3"], "there is no option max_stepz in trainer (did you mean max_steps?)"),
    ],
)
def test_options_that_make_another_run_are_refused(options, said, command, tmp_path):
    is_refused(command(f"resume={make_run(tmp_path / 'old')}", *options), said)


@pytest.mark.parametrize(
    ("made", "said"), [("", "there is no run in it"), ("a: [", "damaged"), ("a: 1", "not a run")]
)
def test_a_folder_that_holds_no_run_is_refused(made, said, command, tmp_path):
    folder = tmp_path / "old"
    if made:
        make_run(folder)
        (folder / ".hydra/config.yaml").write_text(made)
    is_refused(command(f"resume={folder}"), said)


def test_the_options_of_a_resuming_command_follow_the_choices_of_the_run(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "it's", "schedule=linear", "model.width=16", "data._target_=os.getcwd")
    where = str(folder).replace("'", "\\'")
    line = [
        "schedule=linear",
        f"resume='{where}'",
        f"hydra.run.dir='{where}'",
        "hydra.output_subdir=null",
        "logger=none",
        "trainer.devices=2",
    ]
    assert resume.add_resumed_run([*line[-2:], f"resume='{where}'"]) == line
    # the same line again, of a job that is requeued
    assert resume.add_resumed_run([*line[-2:], f"resume='{where}'", "model.width=16"]) == line
    # flags come first: Hydra accepts none between options
    flags = ["--config-name=train", "--config-dir", "mine"]
    assert resume.add_resumed_run([line[4], *flags, line[5], line[1]]) == [*flags, *line]
    assert resume.add_resumed_run(["seed=1"]) == ["seed=1"]
    # another process of the job is started with the line that the first one made
    monkeypatch.setenv(RESULT, "result.json")
    assert resume.add_resumed_run(line) == line


def test_resume_auto_starts_without_and_resumes_with_checkpoint(tmp_path):
    folder = make_run(tmp_path / "run", "schedule=linear")
    line = ["schedule=linear", "resume=auto", f"hydra.run.dir={folder}"]
    assert resume.add_resumed_run(line) == line
    (folder / "checkpoints/previous.ckpt").touch()
    assert resume.add_resumed_run(line)[1] == f"resume='{folder}'"
    with pytest.raises(ValueError, match=r"add hydra\.run\.dir"):
        resume.add_resumed_run(["resume=auto"])


def test_resume_auto_does_not_start_in_the_folder_of_an_evaluation(tmp_path):
    (tmp_path / "evaluation.json").touch()
    with pytest.raises(ValueError, match=r"already holds evaluation\.json: choose another hydra\.run\.dir"):
        resume.add_resumed_run(["resume=auto", f"hydra.run.dir={tmp_path}"])


@pytest.mark.parametrize(
    ("trained", "asked", "complete"),
    [
        ({"max_steps": 6, "max_epochs": -1}, {}, True),
        ({"max_steps": 6, "max_epochs": -1}, {"max_steps": 9}, False),
        ({"max_steps": 6, "max_epochs": -1}, {"max_steps": 3}, True),
        ({"max_steps": -1, "max_epochs": 2}, {}, True),
        ({"max_steps": -1, "max_epochs": 2}, {"max_epochs": 4}, False),
        ({"max_steps": 100, "max_epochs": 2}, {}, True),  # which the second limit ended
        ({"max_steps": 100, "max_epochs": 2}, {"max_epochs": 4}, False),
        ({"max_steps": 100, "max_epochs": -1, "max_time": "00:00:01:00"}, {"max_time": None}, False),
    ],
)
def test_a_run_is_complete_if_no_limit_asks_for_more(trained, asked, complete, tmp_path):
    run = make_run(tmp_path / "run")
    OmegaConf.save({"trainer": trained}, run / ".hydra/config.yaml")
    config = OmegaConf.create({"trainer": trained | asked})
    assert not resume.is_complete(config, run)
    (run / "summary.json").write_text('{"step": 6}')
    assert resume.is_complete(config, run) == complete


def test_a_schedule_that_has_no_rates_to_compare_is_named_without_them():
    target = "torch.optim.lr_scheduler.OneCycleLR"
    schedule = {"_target_": target, "_partial_": True, "max_lr": 0.1, "total_steps": 9}
    optimizer = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
    config = OmegaConf.create({"lr_schedule": schedule, "optimizer": optimizer})
    before = {"config": {"lr_schedule": schedule | {"total_steps": 6}}}
    point = ResumePoint(Path("last.ckpt"), {"global_step": 3, "nelbo": before})
    with pytest.warns(UserWarning, match=r"in place of 6 .*at step 3 the learning rate changes; if a run"):
        resume.check_learning_rate(config, point)


@pytest.mark.slow
def test_resume_continues_after_the_last_checkpoint(finished_run, command, tmp_path):
    """No step is trained twice, and the libraries print nothing of their own."""
    run = shutil.copytree(finished_run.folder, tmp_path / "run", symlinks=True)
    trained = newest_checkpoint(run).step
    ended = command(f"resume={run}", f"trainer.max_steps={trained + 3}", folder=run)
    assert ended.code == 0
    shown = [int(line.split()[1]) for line in ended.out.splitlines() if line.startswith("step ")]
    assert shown == [trained + 3]
    assert "weights_only" not in ended.out + ended.err
    assert newest_checkpoint(run).step == trained + 3


def test_run_with_truncated_summary_is_not_finished(tmp_path):
    for text, finished in (("", False), ('{"step": ', False), ('{"step": 6}', True)):
        (tmp_path / "summary.json").write_text(text)
        assert is_finished(tmp_path) == finished


@pytest.mark.parametrize("name", ["metrics.csv", "bound.parquet", "examples.parquet"])
def test_a_finished_run_without_its_files_is_not_finished(name, finished_run, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run", symlinks=True)
    assert finished_step(folder) == 6
    flipped = bytearray((folder / name).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / name).write_bytes(flipped)
    with pytest.warns(UserWarning, match=rf"{folder / name} was damaged or edited"):
        assert finished_step(folder) is None
    (folder / name).unlink()
    with pytest.warns(UserWarning, match=rf"{folder / name} is missing"):
        assert finished_step(folder) is None


def test_a_run_whose_checkpoints_were_removed_is_not_trained_again(finished_run, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run", symlinks=True)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match=r"has a summary\.json but no checkpoint"):
        newest_checkpoint(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(ValueError, match="was trained to step 6 at least and has no checkpoint"):
        newest_checkpoint(folder)
    (folder / "metrics.csv").unlink()
    assert newest_checkpoint(folder) is None


FLIPS = int(os.environ.get("NELBO_TEST_FLIPS", "8"))


def test_every_damaged_last_checkpoint_is_replaced_by_the_one_before_it(finished_run, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run", symlinks=True)
    last, previous = folder / "checkpoints/last.ckpt", folder / "checkpoints/previous.ckpt"
    whole, draw = last.read_bytes(), random.Random(0)
    for number in range(FLIPS):
        damaged = bytearray(whole)
        place = draw.randrange(len(whole) - 100)  # before the checksum
        damaged[place] ^= 1 << draw.randrange(8)
        last.write_bytes(damaged[:place] if number % 4 == 3 else damaged)
        with pytest.warns(UserWarning, match=rf"{last} is damaged: resuming from {previous}"):
            assert newest_checkpoint(folder).path == previous


def test_metrics_are_continued_and_a_row_that_is_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step, row in enumerate([{"b": 1.0}, {"b": 2.0}, {"a": 3.0, "b": 4.0}, {"b": 0.5}]):
        file.log_metrics(row, step)
        assert MetricsFile(path).describe() == file.describe()  # read from the file
        if step == 2:
            kept = file.describe()
    with path.open("a") as stream:
        stream.write("0.1,0.")
    restore(path, **kept)
    MetricsFile(path).log_metrics({"b": 5.0}, 3)
    assert path.read_text().split() == ["a,b,step", ",1.0,0", ",2.0,1", "3.0,4.0,2", ",5.0,3"]


def test_a_folder_has_one_wandb_run(finished_run, compose, tmp_path):
    from nelbo.training.loggers.media import finish
    from nelbo.training.loggers.wandb_run import run_id

    folder = shutil.copytree(finished_run.folder, tmp_path / "run", symlinks=True)
    loggers = build.build_loggers(compose(run_dir=folder), folder)
    assert loggers[1].experiment.id == run_id(folder)
    finish(loggers)
    ids = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
    assert len(ids) == 1
