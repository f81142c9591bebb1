"""L_t against t as one chart."""

from typing import Any

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit


def bound_figure(split: str, table: StepTable, unit: Unit) -> Any:
    """The chart of L_t against t that the report has, a plotly figure."""
    from nelbo.reports.html.charts.chain import add_each
    from nelbo.reports.html.style import SPLIT_COLOURS, SPLIT_NAMES, figure, log_t, log_y
    from nelbo.runs.bins import binned, log_bins

    drawn = figure("t, from data to noise", f"{unit.label}, per step")
    add_each(drawn, binned(table, log_bins([table])), unit.per_nat, SPLIT_NAMES[split], SPLIT_COLOURS[split])
    return log_t(log_y(drawn), int(table.t[-1]))
