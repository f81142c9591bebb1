"""Shares of the bound: L_0, bins of t, L_T."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.evaluation.t_bins import U_BINS
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import (
    PART_COLOURS,
    SPLIT_NAMES,
    T_BIN_COLOURS,
    faded,
    figure,
    integer_steps,
    part_label,
)
from nelbo.runs.run_folder import Run, share_names


def shares(entries: Sequence[Entry]) -> Card:
    """Shares of the total at the end, and over training."""
    is_discrete = any(entry.run.is_discrete for entry in entries)  # a density's bound has no shares
    views = {"at the end": _final(entries)}
    if len(entries) == 1:
        views["over training"] = _over_training(entries[0].run)
    return Card(
        key="shares",
        title="Share of the bound by t",
        caption=Markup(
            "Bins of t are powers of ten; L<sub>0</sub> is the step to the data. "
            "The largest share has the most to gain."
        ),
        views=views,
        needs="share/ metrics in summary.json or metrics.csv" if is_discrete else None,
    )


def _final(entries: Sequence[Entry]) -> go.Figure:
    if len(entries) == 1:
        rows = [(SPLIT_NAMES[split], entries[0].run, split) for split in SPLIT_NAMES]
    else:
        rows = [(entry.label, entry.run, entry.run.held_out or "val") for entry in entries]
    bars = {label: found for label, run, split in rows if (found := run.shares(split))}
    bars = {label: found for label, found in bars.items() if min(found.values()) >= 0}
    drawn = figure("", "")
    for key in share_names(key for found in bars.values() for key in found if found[key]):
        drawn.add_bar(
            y=list(bars),
            x=[found.get(key, 0.0) for found in bars.values()],
            orientation="h",
            name=part_label(key),
            marker={"color": _colour(key), "line": {"width": 0}},
            texttemplate="%{x:.0%}",
            insidetextanchor="middle",
            textangle=0,
            hovertemplate="<b>%{y}</b>, %{fullData.name}: %{x:.2%}<extra></extra>",
        )
    drawn.update_xaxes(tickformat=".0%", range=[0, 1.002], dtick=0.25)
    drawn.update_yaxes(autorange="reversed", showgrid=False, type="category")  # names may be numbers
    drawn.update_layout(barmode="stack", bargap=0.35, legend={"traceorder": "normal"})
    drawn.update_layout(uniformtext={"mode": "hide", "minsize": 10})
    drawn.update_layout(margin={"r": 24})  # for the half of the label 100% beyond the axis
    return drawn


def _over_training(run: Run) -> go.Figure:
    drawn = figure("step", "share of the validation bound")
    prefix = "val/share/"
    logged = [name.removeprefix(prefix) for name in run.metrics if name.startswith(prefix)]
    columns = {key: run.metrics[prefix + key] for key in share_names(logged)}
    if any(series.values.min() < 0 for series in columns.values()):
        return drawn
    for key in columns:
        drawn.add_scatter(
            x=columns[key].steps,
            y=columns[key].values,
            name=part_label(key),
            stackgroup="shares",
            line={"color": _colour(key), "width": 1},
            fillcolor=faded(_colour(key), 0.75),
            hovertemplate="%{y:.1%}",
        )
    drawn.update_yaxes(tickformat=".0%", range=[0, 1])
    drawn.update_layout(hovermode="x unified", legend={"traceorder": "normal"})
    return integer_steps(drawn)


def _colour(key: str) -> str:
    """A bin has the same colour in every run, whichever other bins the run has."""
    if key in PART_COLOURS:
        return PART_COLOURS[key]
    t, low, high = key.split("_")
    number = round(float(low) * U_BINS) if t == "u" else len(high) - 2
    return T_BIN_COLOURS[number % len(T_BIN_COLOURS)]
