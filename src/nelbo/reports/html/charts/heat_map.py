"""L_t over training: which noise levels are learned when."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.reports.comparison.named_run import chain_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, was_trained
from nelbo.reports.html.style import figure, has_traces, integer_steps
from nelbo.runs.bins import binned, log_bins
from nelbo.runs.run_folder import Run


def heat_map(entries: Sequence[Entry]) -> Card:
    """Step against t, coloured by L_t: validation and training of one run, validation of several."""
    if len(entries) == 1:
        views = {"validation": _map(entries[0].run, "val"), "training": _map(entries[0].run, "train")}
    else:
        views = {entry.name: _map(entry.run, "val") for entry in entries}
    _share_colours([view for view in views.values() if has_traces(view)])
    return Card(
        key="heat_map",
        title=Markup("L<sub>t</sub> over training"),
        caption=Markup(
            "A column ends at the step of its measurement; the lowest row, t = 1, is L<sub>0</sub>. "
            "Colour is the mean of L<sub>t</sub> per step, on a logarithmic scale."
        ),
        views=views,
        needs="at least two measurements of a split in bound.parquet" if was_trained(entries) else None,
    )


def _map(run: Run, split: str) -> go.Figure:
    label = chain_label([run])
    drawn = figure("step", label)
    measured = run.step_tables.get(split, {})
    if len(measured) < 2:
        return drawn
    steps = np.array(list(measured))
    bins = log_bins(list(measured.values()), at_least=1)
    nats = np.stack([binned(terms, bins).mean for terms in measured.values()], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        colour = np.log10(np.where(nats > 0, nats * run.unit.per_nat, np.nan))
    if not np.isfinite(colour).any():
        return drawn
    drawn.add_heatmap(
        x=_edges(steps),
        y=bins.edges,
        z=colour,
        customdata=10**colour,
        text=np.broadcast_to(
            [[_range(label, a, b)] for a, b in zip(bins.first_t, bins.last_t, strict=True)], nats.shape
        ),
        colorscale="Viridis",
        colorbar={
            "title": {"text": f"{run.unit.label} per step", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
        },
        hovertemplate="%{text}: %{customdata:.3g} per step<extra></extra>",
    )
    T = int(bins.last_t[-1])
    powers = [10**k for k in range(len(str(T)))]
    drawn.update_yaxes(type="log", tickvals=powers, ticktext=[str(t) for t in powers])
    drawn.update_xaxes(showgrid=False)
    return integer_steps(drawn)


def _share_colours(maps: list[go.Figure]) -> None:
    """One scale for all maps, so that they can be compared."""
    if not maps:
        return
    traces: list[Any] = [drawn.data[0] for drawn in maps]  # pyright: ignore[reportIndexIssue]
    low, high = min(np.nanmin(trace.z) for trace in traces), max(np.nanmax(trace.z) for trace in traces)
    ticks = np.arange(np.floor(low), np.ceil(high) + 1)
    for trace in traces:
        trace.update(zmin=low, zmax=high)
        trace.colorbar.update(tickvals=ticks, ticktext=[f"10<sup>{tick:.0f}</sup>" for tick in ticks])


def _edges(steps: np.ndarray) -> np.ndarray:
    """A column ends where its measurement was made."""
    return np.concatenate([[max(2 * steps[0] - steps[1], 0)], steps])


def _range(label: str, first: int, last: int) -> str:
    return f"{label} = {first}" if first == last else f"{label} = {first}–{last}"
