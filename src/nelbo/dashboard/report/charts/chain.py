"""L_t against t: per step, and added up from either end of the chain."""

from collections.abc import Iterator, Sequence

from nelbo.dashboard.report.bins import binned, from_data, from_noise, log_bins
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
        add_line(
            each,
            table.bins.centre,
            table.mean * per_nat,
            name,
            colour,
            error=table.stderr * per_nat,
            positive=True,
            mode="lines+markers",
            marker={"size": 4},
        )
        for drawn, curve in (
            (noise, from_noise(table, entry.prior(split))),
            (data, from_data(table)),
        ):
            add_line(
                drawn, curve.t, curve.value * per_nat, name, colour, error=curve.error * per_nat
            )
    views = {"per step": each, "added up from noise": noise, "added up from data": data}
    return Card(
        key="chain",
        title="L<sub>t</sub> against t",
        caption="The leftmost point, t = 1, is L<sub>0</sub>; every other point is the mean of L<sub>t</sub> "
        "over a bin of neighbouring t. Added up from noise: L<sub>T</sub> plus all steps from T down to t, "
        "what has been sent when t is reached; it ends at the bound on the left. Added up from data: "
        "L<sub>0</sub> plus all steps up to t. Bands are one standard error, draws taken as independent.",
        views={label: log_t(view, longest) for label, view in views.items()},
        needs="bound.parquet",
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
