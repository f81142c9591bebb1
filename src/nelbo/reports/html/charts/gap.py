"""Held-out data against training data, along the chain."""

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from nelbo.evaluation.step_table import StepTable
from nelbo.reports.comparison.named_run import chain_label, shared_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, was_trained
from nelbo.reports.html.style import GREY, SPLIT_COLOURS, SPLIT_NAMES, error_texts, figure, log_t
from nelbo.runs import bins


def gap(entries: Sequence[Entry]) -> Card:
    """Where on the chain held-out data costs more than training data."""
    unit = shared_label(entries)
    x = chain_label([entry.run for entry in entries])
    added = figure(x, f"{unit}, per bin")
    relative = figure(x, "of the training value")
    relative.update_yaxes(tickformat="+.0%")
    longest = 1
    for entry, held_out, train, name, colour in _pairs(entries):
        shared = bins.log_bins([held_out, train], per_decade=4, at_least=16)
        tables = bins.binned(held_out, shared), bins.binned(train, shared)
        longest = max(longest, int(train.t[-1]))
        _add(added, bins.gap(*tables), entry.run.unit.per_nat, name, colour, x)
        _add(relative, bins.relative_gap(*tables), 1.0, name, colour, x)
    views = {"what it adds to the bound": added, "relative": relative}
    for view in views.values():
        view.add_hline(y=0, line={"color": GREY, "width": 1})
    return Card(
        key="gap",
        title="Gap between held-out and training data",
        caption="Above zero, held-out data costs more than the training batches since the last validation. "
        "These were scored with the raw weights and with dropout, held-out data with the averaged ones, so a "
        "value below zero can mean that averaging helps. Bars are one standard error.",
        views={label: log_t(view, longest) for label, view in views.items()},
        needs="training rows and held-out rows in bound.parquet" if was_trained(entries) else None,
    )


def _pairs(entries: Sequence[Entry]) -> Iterator[tuple[Entry, StepTable, StepTable, str, str]]:
    for entry in entries:
        train = entry.run.last_step_table("train")
        for split in ("val", "test"):
            held_out = entry.run.last_step_table(split)
            if train is None or held_out is None:
                continue
            if len(entries) == 1:
                yield entry, held_out, train, SPLIT_NAMES[split], SPLIT_COLOURS[split]
            elif split == "val":
                yield entry, held_out, train, entry.label, entry.colour


def _add(drawn: go.Figure, curve: bins.BinnedCurve, factor: float, name: str, colour: str, x: str) -> None:
    drawn.add_scatter(
        x=curve.t,
        y=curve.value * factor,
        error_y={"array": curve.error * factor, "thickness": 1.2, "width": 0},
        customdata=error_texts(curve.error * factor),
        mode="markers",
        marker={"size": 7, "color": colour},
        name=name,
        hovertemplate=f"<b>%{{fullData.name}}</b><br>{x} around %{{x:.3~g}}: "
        "%{y}%{customdata}<extra></extra>",
    )
