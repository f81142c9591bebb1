"""The bound of each class."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from nelbo.reports.comparison.named_run import shared_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import error_texts, figure
from nelbo.text import plotly_text

SINGLE_TICKS = 20  # classes that can each have a label
SPREAD = 0.5  # of the runs side by side, in classes


def classes(entries: Sequence[Entry]) -> Card:
    """Which classes cost more than others."""
    measured = [entry for entry in entries if entry.run.summary.get("classes")]
    unit = shared_label(entries)
    views = {
        label: figure("class", unit) for label in ("total", Markup("L<sub>0</sub>"), Markup("L<sub>t</sub>"))
    }
    for number, entry in enumerate(measured):
        place = SPREAD * ((number + 1) / (len(measured) + 1) - 0.5)
        for view, part in zip(views.values(), (entry.run.unit.metric, "L_0", "L_t"), strict=True):
            _add(view, entry, part, place)
    return Card(
        key="classes",
        title="The bound by class",
        caption="The mean over the examples of each class; bars are one standard error. "
        "A dashed line is the mean over all classes.",
        views=views,
        needs=None,  # data without classes, or a training, which does not look at them
    )


def _add(drawn: go.Figure, entry: Entry, part: str, place: float) -> None:
    """The classes as points, and the mean of all classes as a line."""
    rows = entry.run.summary["classes"]
    labels = [row["class"] for row in rows]
    names = [plotly_text(row.get("name", row["class"])) for row in rows]
    error = [row[f"{part}_stderr"] for row in rows]  # None for a single example
    drawn.add_scatter(
        x=np.array(labels) + place,
        y=[row[part] for row in rows],
        error_y={"array": error, "thickness": 1.5, "width": 0},
        customdata=[
            [name, row["count"], e] for name, row, e in zip(names, rows, error_texts(error), strict=True)
        ],
        mode="markers",
        marker={"size": 8 if len(rows) <= SINGLE_TICKS else 4, "color": entry.colour},
        name=entry.label,
        hovertemplate="<b>class %{customdata[0]}</b>, %{customdata[1]} examples<br>"
        "%{y:.4f}%{customdata[2]}<extra></extra>",
    )
    mean = entry.run.final(f"{entry.run.held_out}/{part}")
    drawn.add_hline(y=mean, line={"color": entry.colour, "width": 1, "dash": "dash"}, opacity=0.6)
    if len(rows) <= SINGLE_TICKS:
        drawn.update_xaxes(tickvals=labels, ticktext=names, showgrid=False)
