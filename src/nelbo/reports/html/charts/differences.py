"""The difference of each run from the first, part by part along the chain."""

from collections.abc import Sequence

import numpy as np

from nelbo.reports.comparison.difference import Differences
from nelbo.reports.comparison.named_run import shared_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import GREY, error_texts, figure, has_traces, part_label
from nelbo.runs.example_table import t_bin_columns


def differences(entries: Sequence[Entry], from_first: Sequence[Differences | None]) -> Card:
    """The difference of each part of the bound from that of the first run, with its error.

    Args:
        entries: the runs of the page.
        from_first: the difference of each run.
    """
    first = entries[0]
    drawn = figure(f"difference, {shared_label(entries)}", "")
    found = [
        (entry, difference)
        for entry, difference in zip(entries, from_first, strict=True)
        if difference is not None
    ]
    columns = t_bin_columns({name for _, difference in found for name in difference.parts})
    names = ["L_0", *columns, "L_T", "total"]
    for number, (entry, difference) in enumerate(found):
        shown = [(row, difference.parts[name]) for row, name in enumerate(names) if name in difference.parts]
        error = np.nan_to_num([part.stderr for _, part in shown])
        drawn.add_scatter(
            # side by side, so that error bars do not overlap
            y=[row + 0.5 * ((number + 1) / (len(found) + 1) - 0.5) for row, _ in shown],
            x=[part.mean for _, part in shown],
            error_x={"array": error, "thickness": 1.5, "width": 0},
            customdata=[
                [part_label(names[row]), text]
                for (row, _), text in zip(shown, error_texts(part.stderr for _, part in shown), strict=True)
            ],
            mode="markers",
            marker={"size": 8, "color": entry.colour},
            name=entry.label,
            hovertemplate="<b>%{fullData.name}</b>, %{customdata[0]}<br>"
            "%{x:+.4f}%{customdata[1]}<extra></extra>",
        )
    if has_traces(drawn):
        drawn.add_vline(x=0, line={"color": GREY, "width": 1})
    rows = list(range(len(names)))
    drawn.update_yaxes(
        tickvals=rows, ticktext=[part_label(name) for name in names], range=[len(names) - 0.5, -0.5]
    )
    drawn.update_xaxes(tickformat="+.3~g")
    return Card(
        key="differences",
        title=f"Difference from {first.name}",
        caption="Left of zero, the bound of a run is lower than that of the first. If both runs have "
        "examples.parquet, the difference is paired by example, and its error is much smaller than those "
        "of the totals; otherwise the squares of both errors are added. Bars are one standard error, if it "
        "is known.",
        views={"differences": drawn},
        needs=None,  # a single run, or runs that cannot be compared, which is said elsewhere
    )
