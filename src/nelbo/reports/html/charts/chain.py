"""L_t against t: per step, and added up from either end of the chain."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.reports.comparison.named_run import chain_label, shared_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, lines
from nelbo.reports.html.style import add_first_step, add_line, figure, log_t, log_y
from nelbo.runs.bins import SINGLE_STEPS, Binned, binned, from_data, from_noise, log_bins

BINS_OF_U = " In continuous time, bin 1 is L<sub>0</sub>, and the others divide u from 0 to 1 evenly."
OTHER_CHAINS = (
    " These chains have other steps, and a longer step has a larger L<sub>t</sub>: compare the curves that "
    "are added up."
)


def chain(entries: Sequence[Entry]) -> Card:
    """Where on the chain the bound is spent, at the end of training."""
    unit = shared_label(entries)
    x = f"{chain_label([entry.run for entry in entries])}, from data to noise"
    each = figure(x, f"{unit}, per step")
    noise, data = figure(x, f"{unit}, from noise to t"), figure(x, f"{unit}, from data to t")
    longest, chains = 1, set()
    for line in lines(entries):
        t, per_nat = line.table.t.tolist(), line.run.unit.per_nat
        table = binned(line.table, log_bins([line.table]))
        longest = max(longest, t[-1])
        chains.add(tuple(t))
        add_each(each, table, per_nat, line.name, line.colour)
        points = {"mode": "lines+markers", "marker": {"size": 4}} if len(t) <= SINGLE_STEPS else {}
        for drawn, curve in (
            (noise, from_noise(table, line.run.prior(line.split))),
            (data, from_data(table)),
        ):
            value, error = curve.value * per_nat, curve.error * per_nat
            add_line(drawn, curve.t, value, line.name, line.colour, error=error, **points)
    views = {"per step": log_y(each), "added up from noise": noise, "added up from data": data}
    return Card(
        key="chain",
        title=Markup("L<sub>t</sub> against t"),
        caption=Markup(
            "The diamond at the cleanest t is L<sub>0</sub>; every other point is a step of the chain, "
            "or the mean of L<sub>t</sub> over a bin of neighbouring steps. Added up from noise: "
            "L<sub>T</sub> plus all steps down to t, the cost of x<sub>t</sub>; it ends at the "
            "bound on the left. Added up from data: L<sub>0</sub> plus all steps up to t. Bands are one "
            "standard error, draws taken as independent."
            + (BINS_OF_U if "bin of u" in x else "")
            + (OTHER_CHAINS if len(chains) > 1 else "")
        ),
        views={label: log_t(view, longest) for label, view in views.items()},
        needs="bound.parquet",
    )


def add_each(drawn: go.Figure, table: Binned, per_nat: float, name: str, colour: str) -> None:
    """L_t as a line with a band, and L_0, which is something else, as a point by itself."""
    value, error = table.mean * per_nat, table.stderr * per_nat
    markers = {"mode": "lines+markers", "marker": {"size": 4, "color": colour}, "positive": True}
    add_line(drawn, table.bins.centre[1:], value[1:], name, colour, error=error[1:], **markers)
    if value[0] > 0:
        hover = "L<sub>0</sub>: %{y:.4g}"
        add_first_step(drawn, table.bins.first_t[:1], value[:1], name, colour, hover, error[:1])
