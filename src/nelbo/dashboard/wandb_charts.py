"""Charts of the bound for Weights & Biases; other loggers are passed over."""

from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import Logger
from torch import Tensor

from nelbo.dashboard.wandb_guard import GuardedWandbLogger
from nelbo.evaluation.tally import StepTable
from nelbo.evaluation.units import Unit


def log_bound(logger: Logger, split: str, timesteps: Tensor, table: StepTable, unit: Unit) -> None:
    """L_t against t, mean and a band of one standard error, as a table with a line chart.

    Args:
        logger: of the run.
        split: ``val`` or ``test``.
        timesteps: (K,) t of each step.
        table: sums of each step; steps that were never drawn are left out.
        unit: of the chart.
    """
    if not isinstance(logger, GuardedWandbLogger):
        return
    drawn = table.count > 0
    mean, stderr = (column[drawn] * unit.per_nat for column in (table.mean, table.stderr))
    rows = zip(timesteps[drawn].tolist(), mean.tolist(), stderr.nan_to_num().tolist(), strict=True)
    data = wandb.Table(columns=["t", "L_t", "stderr"], data=[list(row) for row in rows])
    key = f"{split}/L_t_against_t"
    chart = wandb.plot.line(data, "t", "L_t", title=f"{split}: L_t in {unit.label} against t (t = 1 is L_0)")

    def record(run: wandb.Run) -> dict[str, Any]:
        # A table that belongs to the run already is a file of the run. Any other becomes an artifact, for
        # which W&B asks the server and lets the training wait for the answer, or fail with it.
        data.bind_to_run(run, f"{key}_table", run.step)
        return {key: chart}

    logger.log(record)


def log_image(logger: Logger, key: str, path: Path) -> None:
    """An image file."""
    if isinstance(logger, GuardedWandbLogger):
        logger.log(lambda run: {key: wandb.Image(str(path))})
