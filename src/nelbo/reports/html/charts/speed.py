"""Training speed and the loss that was minimised."""

from collections.abc import Sequence

from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, was_trained
from nelbo.reports.html.style import add_line, figure, integer_steps

METRICS = {
    "training loss": ("train/loss", "loss, as it was minimised"),
    "images per second": ("throughput/images_per_second", "images per second, all devices"),
}


def speed(entries: Sequence[Entry]) -> Card:
    """Loss and throughput against step."""
    views = {}
    for label, (metric, title) in METRICS.items():
        views[label] = figure("step", title)
        for entry in entries:
            series = entry.run.metrics.get(metric)
            if series is not None:
                add_line(views[label], series.steps, series.values, entry.label, entry.colour)
        views[label].update_layout(showlegend=len(entries) > 1)
        if metric.startswith("throughput"):
            views[label].update_yaxes(rangemode="tozero")
    return Card(
        key="speed",
        title="Loss and speed",
        caption="The loss is on the scale of its own weighting and compares only between runs of the same "
        "loss. Speed leaves out validation.",
        views={label: integer_steps(view) for label, view in views.items()},
        needs="train/loss or throughput/images_per_second in metrics.csv" if was_trained(entries) else None,
    )
