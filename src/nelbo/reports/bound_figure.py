"""L_t against t as one chart."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo.evaluation.accumulator import StepTable
from nelbo.evaluation.units import Unit
from nelbo.runs.bound_table import Terms


def bound_figure(split: str, timesteps: Tensor, table: StepTable, unit: Unit) -> Any:
    """The chart of L_t against t that the report has, a plotly figure."""
    from nelbo.reports.html.charts.chain import add_each
    from nelbo.reports.html.style import SPLIT_COLOURS, SPLIT_NAMES, figure, log_t, log_y
    from nelbo.runs.bins import binned, log_bins

    not_measured = torch.full_like(table.count, torch.nan)
    terms = Terms(
        t=timesteps.cpu().numpy().astype(np.int64),
        count=table.count.numpy(),
        sum=table.sum.numpy(),
        sum_of_squares=table.sum_of_squares.numpy(),
        sum_of_errors=(not_measured if table.sum_of_errors is None else table.sum_of_errors).numpy(),
        sum_of_fractions=(
            not_measured if table.sum_of_interpolations is None else table.sum_of_interpolations
        ).numpy(),
    )
    drawn = figure("t, from data to noise", f"{unit.label}, per step")
    add_each(drawn, binned(terms, log_bins([terms])), unit.per_nat, SPLIT_NAMES[split], SPLIT_COLOURS[split])
    return log_t(log_y(drawn), int(terms.t[-1]))
