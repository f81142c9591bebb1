"""L_t over training: which noise levels are learned when."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from nelbo.dashboard.report.bins import binned, log_bins
from nelbo.dashboard.report.card import Card
from nelbo.dashboard.report.entry import Entry
from nelbo.dashboard.report.style import figure
from nelbo.dashboard.run_folder import Run


def heat_map(entries: Sequence[Entry]) -> Card:
    """Step against t, coloured by L_t: validation and training of one run, validation of several."""
    if len(entries) == 1:
        views = {"validation": _map(entries[0].run, "val"), "training": _map(entries[0].run, "train")}
    else:
        views = {entry.name: _map(entry.run, "val") for entry in entries}
    return Card(
        key="heat_map",
        title="L<sub>t</sub> over training",
        caption="One column is one measurement; the lowest row, t = 1, is L<sub>0</sub>. Colour is the mean "
        "of L<sub>t</sub> per step, on a logarithmic scale.",
        views=views,
        needs="at least two measurements of a split in bound.parquet",
    )


def _map(run: Run, split: str) -> go.Figure:
    drawn = figure("step", "t")
    measured = run.terms.get(split, {})
    if len(measured) < 2:
        return drawn
    steps = np.array(list(measured))
    bins = log_bins(list(measured.values()), at_least=1)
    nats = np.stack([binned(terms, bins).mean for terms in measured.values()], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        colour = np.log10(np.where(nats > 0, nats * run.unit.per_nat, np.nan))
    if not np.isfinite(colour).any():
        return drawn
    ticks = np.arange(np.floor(np.nanmin(colour)), np.ceil(np.nanmax(colour)) + 1)
    drawn.add_heatmap(
        x=_edges(steps),
        y=bins.edges,
        z=colour,
        customdata=10**colour,
        text=np.broadcast_to([[_range(a, b)] for a, b in zip(bins.first, bins.last, strict=True)], nats.shape),
        colorscale="Viridis",
        colorbar={
            "title": {"text": run.unit.label, "side": "right"},
            "tickvals": ticks,
            "ticktext": [f"10<sup>{tick:.0f}</sup>" for tick in ticks],
            "thickness": 10,
            "outlinewidth": 0,
        },
        hovertemplate="step %{x:.0f}, %{text}: %{customdata:.3g} per step<extra></extra>",
    )
    T = int(bins.last[-1])
    powers = [10**k for k in range(len(str(T)))]
    drawn.update_yaxes(type="log", tickvals=powers, ticktext=[str(t) for t in powers])
    drawn.update_xaxes(showgrid=False)
    return drawn


def _edges(steps: np.ndarray) -> np.ndarray:
    """Half way between measurements, so that each has a column around it."""
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - (middle[0] - steps[0])], middle, [2 * steps[-1] - middle[-1]]])


def _range(first: int, last: int) -> str:
    return f"t = {first}" if first == last else f"t = {first}–{last}"
