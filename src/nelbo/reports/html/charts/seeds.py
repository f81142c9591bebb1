"""Runs that differ in their seed alone: the mean of each group, with a band of the spread over seeds."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.reports.comparison.named_run import chain_label
from nelbo.reports.comparison.seed_curves import SeedCurve, step_curve, validation_curve
from nelbo.reports.comparison.seeds import SeedGroup
from nelbo.reports.html.card import Card
from nelbo.reports.html.style import (
    RUN_COLOURS,
    add_line,
    figure,
    has_traces,
    integer_steps,
    log_t,
    log_y,
)
from nelbo.text import plotly_text


def seeds(groups: Sequence[SeedGroup]) -> Card:
    """How much the bound of each group depends on the seed, over training and along the chain."""
    unit = " or ".join(sorted({group.first.unit.label for group in groups}))
    training = figure("step", f"validation bound, {unit}")
    _add(training, groups, validation_curve)
    x = chain_label([group.first for group in groups])
    chain = figure(f"{x}, from data to noise", f"{unit}, per step")
    _add(chain, groups, step_curve, positive=True)
    if has_traces(chain):
        longest = max(int(table[1].t[-1]) for g in groups if (table := g.first.best_step_table()) is not None)
        chain = log_t(log_y(chain), longest)
    return Card(
        key="seeds",
        title="Mean and spread over seeds",
        caption="Each line is the mean over the seeds of a group, each band one standard deviation of its "
        "runs to either side.",
        views={"over training": integer_steps(training), Markup("L<sub>t</sub> against t"): chain},
        needs=None,  # no runs that differ in their seed alone
    )


def _add(
    drawn: go.Figure,
    groups: Sequence[SeedGroup],
    curve_of: Callable[[SeedGroup], SeedCurve | None],
    positive: bool = False,
) -> None:
    for number, group in enumerate(groups):
        curve = curve_of(group)
        if curve is not None:
            name, colour = plotly_text(group.name), RUN_COLOURS[number % len(RUN_COLOURS)]
            add_line(drawn, curve.x, curve.mean, name, colour, error=curve.spread, positive=positive)
