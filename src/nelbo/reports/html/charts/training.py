"""The bound and its parts over training."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.named_run import shared_label
from nelbo.reports.html.card import Card, Views
from nelbo.reports.html.entry import Entry, was_trained
from nelbo.reports.html.style import (
    PART_COLOURS,
    SPLIT_COLOURS,
    SPLIT_NAMES,
    add_line,
    faded,
    figure,
    has_traces,
    integer_steps,
    log_y,
    part_label,
)

LABELS = {part: Markup(part_label(part)) for part in PARTS}


def training(entries: Sequence[Entry]) -> Card:
    """L_0, L_t, L_T and their sum, on training batches and on held-out data."""
    views: Views = {}
    if len(entries) == 1:
        views["parts"] = _stacked(entries[0])
        lines = _splits
    else:
        lines = _runs
    views["total"] = lines(entries, None)
    for part in LABELS:
        views[LABELS[part]] = lines(entries, part)
    return Card(
        key="training",
        title="The bound over training",
        caption="Validation measures held-out data under the averaged weights (if the run has them). "
        "Training values are measured on the training batches, with raw weights and dropout; each point "
        "is the mean since the previous one. Bands and bars are one standard error.",
        views={label: integer_steps(view) for label, view in views.items()},
        needs="metrics.csv with train/ or val/ metrics" if was_trained(entries) else None,
    )


def _stacked(entry: Entry) -> go.Figure:
    """The parts on validation data, one on top of the other."""
    run, drawn = entry.run, figure("step", entry.run.unit.label)
    parts = {part: run.metrics.get(f"val/{part}") for part in LABELS}
    total = run.metrics.get(f"val/{run.unit.metric}")
    if total is None or any(s is None or s.values.min() < 0 for s in parts.values()):
        return drawn
    for part, series in parts.items():
        assert series is not None
        drawn.add_scatter(
            x=series.steps,
            y=series.values,
            name=LABELS[part],
            stackgroup="parts",
            mode="lines+markers",
            marker={"size": 4},
            line={"color": PART_COLOURS[part], "width": 1.5},
            fillcolor=faded(PART_COLOURS[part], 0.45),
            hovertemplate="%{y:.4g}",
        )
    # an untrained network's bound can be hundreds of times the final one
    later = total.values[len(total.values) // 2 :]
    drawn.update_yaxes(range=[0, 1.1 * min(total.values.max(), 3 * np.median(later))])
    drawn.update_layout(hovermode="x unified", legend={"traceorder": "normal"})
    return drawn


def _splits(entries: Sequence[Entry], part: str | None) -> go.Figure:
    run = entries[0].run
    name = part or run.unit.metric
    drawn = figure("step", run.unit.label)
    for split in ("train", "val"):
        series, error = run.metrics.get(f"{split}/{name}"), run.metrics.get(f"{split}/{name}_stderr")
        if series is None:
            continue
        known = error is not None and len(error.values) == len(series.values)
        trace = {"line": {"color": SPLIT_COLOURS[split], "width": 1}} if split == "train" else {}
        add_line(
            drawn,
            series.steps,
            series.values,
            SPLIT_NAMES[split],
            SPLIT_COLOURS[split],
            error=error.values if known and error is not None else None,
            positive=_suits_log(series.values),
            **trace | ({"mode": "lines+markers", "marker": {"size": 5}} if split == "val" else {}),
        )
    value, step = run.final(f"test/{name}"), run.final("step")
    if value is not None and step is not None and has_traces(drawn):
        drawn.add_scatter(
            x=[step],
            y=[value],
            error_y={"array": [run.final(f"test/{name}_stderr") or 0.0], "thickness": 1.5},
            mode="markers",
            marker={"size": 9, "symbol": "diamond", "color": SPLIT_COLOURS["test"]},
            name=SPLIT_NAMES["test"],
            hovertemplate="<b>test</b><br>%{y:.4g}<extra></extra>",
        )
    return _scaled(drawn)


def _runs(entries: Sequence[Entry], part: str | None) -> go.Figure:
    drawn = figure("step", shared_label(entries))
    for entry in entries:
        name = part or entry.run.unit.metric
        val, train = (entry.run.metrics.get(f"{split}/{name}") for split in ("val", "train"))
        if train is not None:
            thin = {"width": 1, "dash": "dot", "color": entry.colour}
            group = f"of {entry.label}"
            options = {"line": thin, "legendgroup": group, "showlegend": val is None, "opacity": 0.7}
            add_line(drawn, train.steps, train.values, f"{entry.label}, training", entry.colour, **options)
        if val is not None:
            add_line(drawn, val.steps, val.values, entry.label, entry.colour, mode="lines+markers")
    return _scaled(drawn)


def _suits_log(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() > 20)


def _scaled(drawn: go.Figure) -> go.Figure:
    """A logarithmic axis where values span more than a factor of 20."""
    if not has_traces(drawn):
        return drawn
    lines = [trace.y for trace in drawn.data if trace.mode != "lines" or trace.fill is None]  # pyright: ignore
    values = np.concatenate([np.asarray(y, dtype=float) for y in lines if len(y)] or [np.ones(1)])
    return log_y(drawn) if _suits_log(values) else drawn
