"""L_t against t: per step, and added up from either end of the chain."""

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from nelbo.dashboard.report.bins import Binned, binned, from_data, from_noise, log_bins
from nelbo.dashboard.report.card import Card
from nelbo.dashboard.report.entry import Entry, shared_label
from nelbo.dashboard.report.style import SPLIT_COLOURS, SPLIT_NAMES, add_line, figure, log_t, log_y
from nelbo.dashboard.run_folder import Terms


def chain(entries: Sequence[Entry]) -> Card:
    """Where on the chain the bound is spent, at the end of training."""
    unit = shared_label(entries)
    x = "t, from data (1) to noise (T)"
    each = log_y(figure(x, f"{unit}, per step"))
    noise, data = figure(x, f"{unit}, from T down to t"), figure(x, f"{unit}, from 1 up to t")
    longest = 1
    for entry, terms, name, colour, split in _lines(entries):
        table, per_nat = binned(terms, log_bins([terms])), entry.run.unit.per_nat
        longest = max(longest, len(terms.count))
        _add_each(each, table, per_nat, name, colour)
        for drawn, curve in (
            (noise, from_noise(table, entry.prior(split))),
            (data, from_data(table)),
        ):
            add_line(drawn, curve.t, curve.value * per_nat, name, colour, error=curve.error * per_nat)
    views = {"per step": each, "added up from noise": noise, "added up from data": data}
    return Card(
        key="chain",
        title="L<sub>t</sub> against t",
        caption="The diamond at t = 1 is L<sub>0</sub>; every other point is the mean of L<sub>t</sub> over "
        "a bin of neighbouring t. Added up from noise: L<sub>T</sub> plus all steps from T down to t, "
        "what has been sent when t is reached; it ends at the bound on the left. Added up from data: "
        "L<sub>0</sub> plus all steps up to t. Bands are one standard error, draws taken as independent.",
        views={label: log_t(view, longest) for label, view in views.items()},
        needs="bound.parquet",
    )


def _add_each(drawn: go.Figure, table: Binned, per_nat: float, name: str, colour: str) -> None:
    """L_t as a line with a band, and L_0, which is something else, as a point by itself."""
    value, error = table.mean * per_nat, table.stderr * per_nat
    markers = {"mode": "lines+markers", "marker": {"size": 4, "color": colour}, "positive": True}
    add_line(drawn, table.bins.centre[1:], value[1:], name, colour, error=error[1:], **markers)
    if value[0] > 0:
        drawn.add_scatter(
            x=[1],
            y=value[:1],
            error_y={"array": error[:1], "thickness": 1.5, "width": 0},
            mode="markers",
            marker={"size": 7, "symbol": "diamond", "color": colour},
            name=name,
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"<b>{name}</b><br>L<sub>0</sub>: %{{y:.4g}}<extra></extra>",
        )


def _lines(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Terms, str, str, str]]:
    """One line for each split of a single run, or for each of several runs."""
    for entry in entries:
        if len(entries) > 1:
            terms = entry.terms()
            if terms is not None:
                yield entry, terms, entry.name, entry.colour, entry.held_out or "val"
            continue
        for split in SPLIT_COLOURS:
            terms = entry.run.last_terms(split)
            if terms is not None:
                yield entry, terms, SPLIT_NAMES[split], SPLIT_COLOURS[split], split
