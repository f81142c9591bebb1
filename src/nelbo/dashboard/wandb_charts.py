"""Charts of the bound for Weights & Biases; other loggers are passed over."""

from pathlib import Path

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from torch import Tensor

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
    if not isinstance(logger, WandbLogger):
        return
    drawn = table.count > 0
    mean, stderr = (column[drawn] * unit.per_nat for column in (table.mean, table.stderr))
    rows = zip(timesteps[drawn].tolist(), mean.tolist(), stderr.nan_to_num().tolist(), strict=True)
    data = wandb.Table(columns=["t", "L_t", "stderr"], data=[list(row) for row in rows])
    chart = wandb.plot.line(data, "t", "L_t", title=f"{split}: L_t in {unit.label} against t (t = 1 is L_0)")
    logger.experiment.log({f"{split}/L_t_against_t": chart})


def log_image(logger: Logger, key: str, path: Path) -> None:
    """An image file."""
    if isinstance(logger, WandbLogger):
        logger.experiment.log({key: wandb.Image(str(path))})
