"""A project of the user's own: what ``nelbo new`` writes, with nelbo installed from a wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "experiment=stripes",
    "model.width=16",
    "model.depth=1",
    "data.n_train=64",
    "data.n_val=16",
    "data.n_test=16",
    "data.batch_size=16",
    "lr_schedule.warmup_steps=0",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=2",
    "val_estimator.evaluations_per_example=3",
    "test_estimator.evaluations_per_example=3",
    "sampler.steps=2",
    "callbacks.samples.num_samples=4",
    "checkpoint_every=2",
    "logger=none",
)
SHORT = (*SMALL, "trainer.max_steps=6")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """An empty environment with the wheel, and a new project in an empty folder.

    The environment sees the libraries of this one, but not nelbo, which is installed here in editable mode.
    """
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(
        ROOT, folder / "source", symlinks=True,
        ignore=lambda path, names: set(names) - {"src", "conf", "pyproject.toml", "README.md", "LICENSE"}
        if Path(path) == ROOT
        else {name for name in names if name == "__pycache__" or name.endswith(".egg-info")},
    )  # fmt: skip
    pip = [sys.executable, "-m", "pip", "-q"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, folder / "source"], check=True)
    shutil.rmtree(folder / "source")
    venv.create(folder / "venv")
    site = next(folder.glob("venv/lib/python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("nelbo-*.whl")
    python = folder / "venv/bin/python"
    target = [*pip, "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel]
    subprocess.run(target, check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment["OMP_NUM_THREADS"] = "1"
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"

    def start(*words: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            list(map(str, words)),
            cwd=folder / "mine" if (folder / "mine").exists() else folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(*words: str | Path) -> SimpleNamespace:
        out, err = (process := start(*words)).communicate(timeout=900)
        return SimpleNamespace(code=process.returncode, out=out, err=err)

    found = run("python", "-c", "import nelbo; print(nelbo.__file__)")
    assert found.out.strip() == str(site / "nelbo/__init__.py"), found.err
    assert run("nelbo", "new", "mine").code == 0
    return SimpleNamespace(folder=folder / "mine", run=run, start=start)


@pytest.fixture(scope="module")
def trained(project) -> Path:
    """A finished run of the project."""
    ended = project.run("nelbo", "train", "--config-dir", "conf", *SHORT, "hydra.run.dir=outputs/a")
    assert ended.code == 0, ended.err
    return project.folder / "outputs/a"


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_tests_of_a_new_project_pass(project):
    ended = project.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ended.code == 0, ended.out
    assert " passed" in ended.out


def test_the_wheel_trains_on_the_digits(project, tiny):
    ended = project.run("nelbo", "train", *tiny, "logger=none", "hydra.run.dir=outputs/digits")
    assert ended.code == 0, ended.err
    assert (project.folder / "outputs/digits/summary.json").exists()


def test_a_run_names_the_classes_of_the_project(trained):
    config = (trained / ".hydra/config.yaml").read_text()
    for target in ("mine.schedule.ShiftedCosine", "mine.network.SmallDiT", "mine.data.Stripes"):
        assert f"_target_: {target}" in config


def test_evaluate_and_sample_read_its_checkpoint(project, trained):
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    measured = project.run(
        "nelbo", "evaluate", "--config-dir", "conf", checkpoint, "estimator=full", "max_examples=2",
        "steps=10", "hydra.run.dir=outputs/measured",
    )  # fmt: skip
    assert measured.code == 0, measured.err
    assert (project.folder / "outputs/measured/evaluation.json").exists()
    sampled = project.run(
        "nelbo", "sample", "--config-dir", "conf", checkpoint, "n=2", "sampler.steps=2", "cond=vertical",
        "hydra.run.dir=outputs/sampled",
    )  # fmt: skip
    assert sampled.code == 0, sampled.err
    assert list((project.folder / "outputs/sampled").rglob("*.png"))


def test_a_checkpoint_is_refused_without_the_configuration_of_the_project(project, trained):
    """It may come from anyone; trust= accepts the package, which is imported from the current folder."""
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    refused = project.run("nelbo", "evaluate", checkpoint)
    assert refused.code == 1
    assert "mine.data.Stripes is not a component of conf/, and is refused" in refused.err
    assert "add the --config-dir of its project, or trust=mine.data.Stripes" in refused.err
    accepted = project.run(
        "nelbo", "evaluate", checkpoint, "trust=mine", "estimator=full", "max_examples=2", "steps=10"
    )
    assert accepted.code == 0, accepted.err


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
def test_a_sweep_has_the_choices_of_the_project(project, launcher):
    name = "side_by_side" if launcher else "in_sequence"
    ended = project.run(
        "nelbo", "train", "--config-dir", "conf", "-m", *SHORT, "schedule=cosine,shifted_cosine",
        f"hydra.sweep.dir=multirun/{name}", *launcher,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    for job in ("0", "1"):
        assert (project.folder / f"multirun/{name}/{job}/summary.json").exists()


def test_a_sweep_whose_jobs_have_two_processes_is_resumed(project):
    sweep = project.folder / "multirun/ranks"
    ended = project.run(
        "nelbo", "train", "--config-dir", "conf", "-m", *SHORT, "schedule=cosine,shifted_cosine",
        "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.sweep.dir=multirun/ranks",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    results = [(sweep / f"{job}/summary.json").read_text() for job in "01"]
    shutil.rmtree(sweep / "1")
    refused = project.run("nelbo", "train", "resume=multirun/ranks")
    assert refused.code == 1
    assert "add hydra.searchpath=... to this command" in refused.err
    again = project.run("nelbo", "train", "--config-dir", "conf", "resume=multirun/ranks")
    assert again.code == 0, again.err
    assert "job 0 (schedule=cosine) was finished before" in again.out
    assert (sweep / "0/summary.json").read_text() == results[0]
    repeated, before = json.loads((sweep / "1/summary.json").read_text()), json.loads(results[1])
    assert repeated["test/bpd"] == before["test/bpd"]


def test_a_search_has_the_choices_of_the_project_and_is_resumed(project):
    study = project.folder / "multirun/search"
    ended = project.run(
        "nelbo", "train", "--config-dir", "conf", "-m", "sweep=optuna", "hydra.sweeper.n_trials=2", *SHORT,
        "schedule=choice(cosine,shifted_cosine)", "optimizer.lr=interval(0.0001,0.01)",
        "hydra.sweep.dir=multirun/search",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    longer = ("resume=multirun/search", "hydra.sweeper.n_trials=3")
    again = project.run("nelbo", "train", "--config-dir", "conf", *longer)
    assert again.code == 0, again.err
    assert again.out.count("was finished before") == 2
    for job in "012":
        assert (study / f"{job}/summary.json").exists()


def test_two_processes_train_as_one(project, trained):
    ended = project.run(
        "nelbo", "train", "--config-path", "conf", *SHORT, "trainer=ddp", "trainer.accelerator=cpu",
        "trainer.devices=2", "hydra.run.dir=outputs/b",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    one, two = (json.loads((project.folder / f"outputs/{name}/summary.json").read_text()) for name in "ab")
    assert two["val/bpd"] == pytest.approx(one["val/bpd"], rel=1e-3)


def test_a_killed_run_is_resumed(project):
    """The hint of a stopped run is the command that resumes it."""
    run_dir = project.folder / "outputs/killed"
    options = ("hydra.searchpath=[file://conf]", *SMALL, "trainer.max_steps=100000")
    process = project.start("nelbo", "train", *options, "hydra.run.dir=outputs/killed")
    _wait_for(run_dir / "checkpoints/last.ckpt", process)
    process.kill()
    process.communicate()
    resume = ("nelbo", "train", "hydra.searchpath=[file://conf]", "resume=outputs/killed")
    again = project.start(*resume)
    time.sleep(1)
    _wait_for_step_after(run_dir, again)
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 128 + signal.SIGTERM, err
    assert "resume with: nelbo train 'hydra.searchpath=[file://conf]' resume=outputs/killed" in err


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 600
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    assert path.exists(), process.communicate()[1]


def _wait_for_step_after(run_dir: Path, process: subprocess.Popen) -> None:
    """Until the run has saved again."""
    last = run_dir / "checkpoints/last.ckpt"
    before, until = last.stat().st_mtime_ns, time.monotonic() + 600
    while process.poll() is None and time.monotonic() < until:
        if last.exists() and last.stat().st_mtime_ns != before:
            return
        time.sleep(0.1)
    raise AssertionError(process.communicate()[1])
