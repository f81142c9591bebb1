"""Charts for Weights & Biases."""

import math
from collections.abc import Mapping
from typing import Any

import wandb
from wandb.plot.custom_chart import CustomChart

from nelbo.training.loggers.media import COLUMNS, BoundChart

LINE_CHART, BAR_CHART = "wandb/line/v0", "wandb/bar/v0"  # presets of W&B


def chart_table(run: wandb.Run, chart: BoundChart, key: str) -> wandb.Table:
    """L_t of every step."""
    return _bound_to_run(run, key, COLUMNS, chart.rows())


def overlay(run: wandb.Run, chart: BoundChart, key: str) -> CustomChart:
    """L_t against t of several validations, as a chart that overlays the runs of a workspace.

    Both axes are log10, because the preset of W&B has linear ones. Each line is named by its run and step:
    lines of different runs would otherwise be joined.
    """
    rows = [
        [f"{run.name} ({run.id}), step {step}", step, t, math.log10(t), value, math.log10(value)]
        for step, curve in chart.curves.items()
        for t, value, shown in zip(curve.t.tolist(), curve.value.tolist(), curve.shown, strict=True)
        if shown
    ]
    columns = ("line", "step", "t", "log10_t", "L_t", "log10_L_t")
    return wandb.plot_table(
        LINE_CHART,
        _bound_to_run(run, f"{key}_table", columns, rows),
        {"x": "log10_t", "y": "log10_L_t", "stroke": "line"},
        {"title": f"{chart.split}: log10 L_t ({chart.unit.label}) against log10 t (t = 1 is L_0)"},
    )


def shares_chart(run: wandb.Run, split: str, shares: Mapping[str, float], key: str) -> CustomChart:
    """The shares of the bound as bars."""
    rows: list[list[Any]] = [[name, share] for name, share in shares.items()]
    return wandb.plot_table(
        BAR_CHART,
        _bound_to_run(run, f"{key}_table", ("part", "share"), rows),
        {"label": "part", "value": "share"},
        {"title": f"{split}: shares of the bound"},
    )


def _bound_to_run(run: wandb.Run, key: str, columns: tuple[str, ...], rows: list[Any]) -> wandb.Table:
    """A table as a file of the run. Any other table becomes an artifact, which needs the server's answer."""
    table = wandb.Table(columns=list(columns), data=rows)
    table.bind_to_run(run, key, run.step)
    return table
