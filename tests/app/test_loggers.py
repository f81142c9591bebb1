"""Which loggers a run has: none, one, or several at once."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from nelbo.app import build
from nelbo.dashboard.metrics_file import MetricsFile

CONF = Path(__file__).parents[2] / "conf/logger"
LEFT_OUT = ("ema", "live_bound", "samples", "throughput", "best_checkpoint", "progress")


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("none", [MetricsFile]),
        ("csv", [MetricsFile]),
        ("tensorboard", [MetricsFile, TensorBoardLogger]),
        ("[csv,tensorboard]", [MetricsFile, TensorBoardLogger]),
    ],
)
def test_every_run_writes_its_metrics_and_what_was_asked_for(choice, kinds, compose, tmp_path):
    config = compose(f"logger={choice}", run_dir=tmp_path)
    assert [type(logger) for logger in build.build_loggers(config, tmp_path)] == kinds


def test_all_loggers_compose_at_once(compose):
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    config = compose(f"logger=[{','.join(names)}]")
    assert set(config.logger) == set(names) - {"csv", "none"}


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


def test_a_run_without_callbacks_still_ends(command, tiny):
    ended = command(
        *[option for option in tiny if "callbacks" not in option],
        "logger=none",
        *[f"callbacks.{name}=null" for name in LEFT_OUT],
    )
    assert ended.code == 0, ended.err
    assert not (ended.folder / "samples").exists()
    assert (ended.folder / "summary.json").exists()
