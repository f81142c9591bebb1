"""Which loggers a run has: none, one, or several at once."""

import csv
from pathlib import Path

import pytest
import torch

from nelbo.compose import build
from nelbo.runs.metrics_file import MetricsFile
from nelbo.training.loggers.tensorboard import TensorBoard

CONF = Path(__file__).parents[2] / "conf/logger"
LEFT_OUT = ("ema", "live_bound", "samples", "throughput", "best_checkpoint", "progress")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("none", [MetricsFile]),
        ("csv", [MetricsFile]),
        ("tensorboard", [MetricsFile, TensorBoard]),
        ("[csv,tensorboard]", [MetricsFile, TensorBoard]),
    ],
)
def test_every_run_writes_its_metrics_and_what_was_asked_for(choice, kinds, compose, tmp_path):
    config = compose(f"logger={choice}", run_dir=tmp_path)
    assert [type(logger) for logger in build.build_loggers(config, tmp_path)] == kinds


def test_all_loggers_compose_at_once(compose):
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    config = compose(f"logger=[{','.join(names)}]")
    assert set(config.logger) == set(names) - {"csv", "none"}


@pytest.mark.slow
def test_a_run_writes_to_tensorboard(command, tiny):
    ended = command(*tiny, "logger=tensorboard")
    assert ended.code == 0, ended.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert list((ended.folder / "tensorboard").glob("events.out.tfevents.*"))
    events = EventAccumulator(str(ended.folder / "tensorboard")).Reload()
    rows = list(csv.DictReader((ended.folder / "metrics.csv").open()))
    for name in ("train/loss", "val/bpd", "test/bpd"):
        assert [e.step for e in events.Scalars(name)] == [int(row["step"]) for row in rows if row[name]]
    assert not (ended.folder / "wandb").exists()
    assert ended.err == ""


@pytest.mark.slow
def test_a_run_without_callbacks_still_ends(command, tiny):
    ended = command(
        *[option for option in tiny if "callbacks" not in option],
        "logger=none",
        *[f"callbacks.{name}=null" for name in LEFT_OUT],
    )
    assert ended.code == 0, ended.err
    assert not (ended.folder / "samples").exists()
    assert (ended.folder / "summary.json").exists()


@pytest.mark.slow
def test_tensorboard_has_the_steps_of_a_resumed_run_and_the_checkpoint_is_the_same(command, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = (*tiny, "logger=tensorboard", "lr_schedule=constant")
    assert command(*options, folder=tmp_path / "run").code == 0
    resumed = command(f"resume={tmp_path / 'run'}", "trainer.max_steps=10", folder=tmp_path / "run")
    assert resumed.code == 0, resumed.err
    assert command(*options, "trainer.max_steps=10", folder=tmp_path / "whole").code == 0

    steps, configs = {}, {}
    for name in ("run", "whole"):
        (file, *_) = sorted((tmp_path / name).rglob("events.out.*"))
        events = EventAccumulator(str(file.parent)).Reload()
        steps[name] = [event.step for event in events.Scalars("train/bpd")]
        checkpoint = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        configs[name] = checkpoint["nelbo"]["config"]["logger"]
    assert steps["run"] == steps["whole"] == [2, 4, 6, 8, 10]
    assert configs["run"].keys() == configs["whole"].keys()
    assert configs["run"]["tensorboard"].keys() == configs["whole"]["tensorboard"].keys()
