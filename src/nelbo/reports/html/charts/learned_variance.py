"""Where between its limits a learned variance lies, along the chain."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from nelbo.evaluation.step_table import StepTable
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, lines
from nelbo.reports.html.style import GREY, add_first_step, add_line, figure, has_traces, log_t
from nelbo.runs.bins import binned, log_bins

LIMITS = {0.0: "β̃, the lower limit", 1.0: "β, the upper limit"}


def learned_variance(entries: Sequence[Entry]) -> Card:
    """Whether the network uses the room that it is given."""
    drawn = figure("t, from data to noise", "interpolation v")
    longest, lowest, highest = 1, 0.0, 1.0
    for line in lines(entries, _is_known):
        table, name, colour = binned(line.table, log_bins([line.table])), line.name, line.colour
        longest = max(longest, int(line.table.t[-1]))
        v = table.interpolation
        lowest, highest = min(lowest, np.nanmin(v)), max(highest, np.nanmax(v))
        markers = {"mode": "lines+markers", "marker": {"size": 4, "color": colour}}
        add_line(drawn, table.bins.centre[1:], v[1:], name, colour, **markers)
        hover = "first step: %{y:.3f}"
        add_first_step(drawn, table.bins.first_t[:1], v[:1], name, colour, hover)
    for limit, name in LIMITS.items() if has_traces(drawn) else ():
        drawn.add_hline(
            y=limit,
            line={"color": GREY, "width": 1, "dash": "dash"},
            annotation={"text": name, "font": {"size": 11}},
            annotation_position="bottom right" if limit else "top right",
        )
    room = 0.05 * (highest - lowest)
    drawn.update_yaxes(range=[lowest - room, highest + room])
    return Card(
        key="learned_variance",
        title="Learned variance",
        caption=Markup(
            "The mean of v, where log variance = v log β + (1 − v) log β̃ (Improved DDPM, equation 15). "
            "v = 0 suits steps at which the network removes all of the noise, v = 1 steps at which it "
            "removes none. The shorter a step, and the noisier, the closer the limits, and the less depends "
            "on v. The diamond is the step to the data, L<sub>0</sub>, whose lower limit is "
            "variance.first_step."
        ),
        views={"interpolation": log_t(drawn, longest)},
        needs=None,  # a variance that is fixed has no place between limits
    )


def _is_known(terms: StepTable) -> bool:
    return bool(terms.sum_of_interpolations.isfinite().all())
