"""Jobs of a real SLURM, as the documentation writes them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nelbo import torch_file
from nelbo.runs import bound_table
from nelbo.runs.paths import LAST
from tests.cli.run_processes import wait_until_ended
from tests.cluster.slurm import ENDED, Slurm

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("sbatch") is None, reason="needs root, slurm-wlm and munge"
    ),
]
TRAIN = f"{sys.executable} train.py"
IMPORTS = f"--export=ALL,PYTHONPATH={ROOT}/src:{ROOT}/tests/cluster"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def submit(slurm, tmp_path, tiny):
    """Submits ``srun python train.py OPTION...``; the folder of the run may use the variables of SLURM."""

    def job(*options: str, folder="run", sbatch=()) -> int:
        chosen = " ".join([*tiny, "logger=none", *options, f"hydra.run.dir={tmp_path}/{folder}"])
        output = f"--output={tmp_path}/%j.txt"
        return slurm.submit(f"srun {TRAIN} {chosen}", output, f"--chdir={ROOT}", *sbatch)

    return job


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def wait_until(is_so: Callable[[], bool], seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)


def output_of(folder: Path, job: int) -> str:
    return (folder / f"{job}.txt").read_text()


def test_a_job_trains_in_the_folder_of_its_number(slurm, submit, tmp_path):
    job = submit(folder="$SLURM_JOB_ID")
    assert slurm.wait(job) == {"COMPLETED"}, output_of(tmp_path, job)
    assert summary(tmp_path / str(job))["test/bpd"] > 0
    assert "command is available" not in output_of(tmp_path, job)  # a hint of Lightning


def test_each_task_of_an_array_is_a_run(slurm, submit, tmp_path):
    job = submit(
        "seed=$SLURM_ARRAY_TASK_ID", folder="$SLURM_ARRAY_JOB_ID/$SLURM_ARRAY_TASK_ID", sbatch=["--array=0,1"]
    )
    assert slurm.wait(job) == {"COMPLETED"}
    first, second = (summary(tmp_path / str(job) / str(seed))["test/bpd"] for seed in (0, 1))
    assert first != second


def test_two_tasks_equal_one_process(slurm, submit, tmp_path):
    alone = submit("model.dropout=0.1", folder="one")
    assert slurm.wait(alone) == {"COMPLETED"}, output_of(tmp_path, alone)
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "model.dropout=0.1")
    together = submit(*ddp, folder="two", sbatch=["--ntasks=2", "--ntasks-per-node=2"])
    assert slurm.wait(together) == {"COMPLETED"}, output_of(tmp_path, together)
    one, two = (summary(tmp_path / name) for name in ("one", "two"))
    for name in ("train/loss", "val/bpd", "test/bpd"):
        assert two[name] == pytest.approx(one[name], rel=1e-5)
    assert output_of(tmp_path, together).count("variational bound") == 1


def test_two_tasks_without_a_folder_are_refused_in_one_line_each(slurm, tiny, tmp_path):
    job = slurm.submit(
        f"srun {TRAIN} {' '.join(tiny)} trainer=ddp trainer.accelerator=cpu trainer.devices=2",
        "--ntasks=2", "--ntasks-per-node=2", f"--output={tmp_path}/%j.txt", f"--chdir={ROOT}",
    )  # fmt: skip
    assert slurm.wait(job) == {"FAILED"}
    lines = [line for line in output_of(tmp_path, job).splitlines() if line.startswith("error:")]
    assert lines
    assert all("hydra.run.dir=outputs/$SLURM_JOB_ID" in line for line in lines)


def test_a_cancelled_job_saves_and_is_resumed_by_the_same_line(slurm, submit, tmp_path):
    job = submit("trainer.max_steps=1000000", "trainer.val_check_interval=1000000", folder="cancelled")
    last, log = tmp_path / "cancelled/checkpoints/last.ckpt", tmp_path / f"{job}.txt"
    wait_until(last.exists, 200, log)
    slurm.call("scancel", str(job))
    assert slurm.wait(job, 120) == {"CANCELLED"}
    wait_until_ended(tmp_path / "cancelled")  # srun drops what it prints
    stopped_at = torch_file.load(last)["global_step"]
    again = submit("resume=auto", f"trainer.max_steps={stopped_at + 2}", folder="cancelled")
    assert slurm.wait(again) == {"COMPLETED"}, output_of(tmp_path, again)
    assert torch_file.load(last)["global_step"] == stopped_at + 2


def test_a_job_requeued_at_its_time_limit_equals_an_uninterrupted_one(slurm, submit, tmp_path):
    # the warning comes 30 s to 90 s before the limit of two minutes, and 100 steps last longer
    steps = ("trainer.max_steps=100", "trainer.val_check_interval=50", "logger=csv")
    slow = ("+callbacks.slow._target_=slow_steps.SlowSteps", "+callbacks.slow.seconds=1.0")
    limited = ("--requeue", "--open-mode=append", "--signal=SIGUSR1@30", "--time=2", IMPORTS)
    job = submit(
        "resume=auto", "trust=slow_steps.SlowSteps", *steps, *slow, folder="requeued", sbatch=limited
    )
    log = tmp_path / f"{job}.txt"

    def has_ended() -> bool:
        [state] = slurm.states(job).values()
        if state == "PENDING":
            slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now")  # not after two minutes
        return state in ENDED

    wait_until(has_ended, 500, log)
    assert slurm.states(job) == {str(job): "COMPLETED"}, log.read_text()
    assert f"SLURM will start job {job} again" in log.read_text()
    alone = submit(*steps, folder="alone")
    assert slurm.wait(alone) == {"COMPLETED"}, output_of(tmp_path, alone)
    folders = [tmp_path / name for name in ("requeued", "alone")]
    one, two = (torch_file.load(folder / LAST)["state_dict"] for folder in folders)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (bound_table.describe(folder / bound_table.FILE_NAME) for folder in folders)
    assert one == two


def test_a_sweep_of_submitit_has_one_job_for_each_run(slurm, tmp_path, tiny):
    sweep = tmp_path / "sweep"
    launcher = "hydra/launcher=submitit_slurm hydra.launcher.timeout_min=10 hydra.launcher.mem_gb=null"
    options = f"-m seed=0,1 hydra.sweep.dir={sweep} {' '.join(tiny)} logger=none"
    environment = slurm.environment | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src")])}
    ended = subprocess.run(
        [*TRAIN.split(), *launcher.split(), *options.split()],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert [summary(sweep / str(n))["test/bpd"] > 0 for n in (0, 1)] == [True, True]
