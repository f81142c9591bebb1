"""Charts and images for Weights & Biases; other loggers are skipped."""

import math
from pathlib import Path
from typing import Any

import wandb
from lightning import Trainer

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit
from nelbo.training.loggers.wandb_guard import GuardedWandbLogger

COLUMNS = ("t", "log10_t", "L_t", "stderr", "low", "high")


def log_bound(trainer: Trainer, split: str, table: StepTable, unit: Unit) -> None:
    """L_t against t with a band of one standard error, both axes logarithmic, and the same as a table.

    The table has the columns ``t``, ``log10_t``, ``L_t``, ``stderr``, ``low`` and ``high`` (L_t -+ stderr).
    The last three are empty where there are fewer than two draws.

    Args:
        trainer: with the loggers.
        split: ``val`` or ``test``.
        table: sums of each step; steps without draws are omitted.
        unit: of the chart.
    """
    for logger in _wandb_loggers(trainer):
        rows = list(table_rows(table, unit))
        make_figure = logger.bound_figure
        figure = None if make_figure is None else make_figure(split, table, unit)
        key = f"{split}/L_t_against_t"

        def record(run: wandb.Run, rows: Any = rows, figure: Any = figure, key: str = key) -> dict[str, Any]:
            data = wandb.Table(columns=list(COLUMNS), data=rows)
            # A table bound to the run is a file of the run. Any other table becomes an artifact, which needs
            # an answer of the server.
            data.bind_to_run(run, f"{key}_table", run.step)
            chart = {} if figure is None else {key: wandb.Plotly(figure)}
            return {**chart, f"{key}_table": data}

        logger.log(record, trainer.global_step)


def table_rows(table: StepTable, unit: Unit) -> list[list[float | None]]:
    """Rows of the table: see :func:`log_bound`."""
    mean, stderr = (column[table.drawn] * unit.per_nat for column in (table.mean, table.stderr))
    rows: list[list[float | None]] = []
    for t, value, error in zip(table.t[table.drawn].tolist(), mean.tolist(), stderr.tolist(), strict=True):
        band = [error, value - error, value + error] if math.isfinite(error) else [None, None, None]
        rows.append([t, math.log10(t), value, *band])
    return rows


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """Log an image file."""
    for logger in _wandb_loggers(trainer):
        logger.log(lambda run: {key: wandb.Image(str(path))}, trainer.global_step)


def _wandb_loggers(trainer: Trainer) -> list[GuardedWandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, GuardedWandbLogger)]
