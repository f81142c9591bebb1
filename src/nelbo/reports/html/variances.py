"""The bound of an evaluation under other reverse variances, from the same network evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nelbo.reports.html.entry import Entry
from nelbo.reports.html.headline import PART_NAMES
from nelbo.reports.html.style import PART_COLOURS
from nelbo.reports.numbers import plus_minus
from nelbo.runs.run_folder import Run


@dataclass(frozen=True)
class VarianceRow:
    """The bound under one variance.

    Attributes:
        entry: the evaluation.
        name: of the variance.
        is_chosen: whether the bound that was asked for has it.
        figures: total, L_0, L_t.
        difference: from the variance that was asked for.
        is_clear: whether that is beyond two standard errors.
        bar: width of each part in percent of the largest total, and its colour; empty for a density's bound.
    """

    entry: Entry
    name: str
    is_chosen: bool
    figures: tuple[str, ...]
    difference: str
    is_clear: bool
    bar: tuple[tuple[float, str], ...]


def variance_rows(entries: Sequence[Entry]) -> list[VarianceRow]:
    """A row for each variance of each evaluation that scored more than one."""
    found = [
        (entry, name, figures)
        for entry in entries
        if len(entry.run.summary.get("variances", {})) > 1
        for name, figures in entry.run.summary["variances"].items()
    ]
    totals = [
        figures.get(f"{entry.run.held_out}/{entry.run.unit.metric}", 0.0) for entry, _, figures in found
    ]
    return [_row(entry, name, figures, max(totals)) for entry, name, figures in found]


def _row(entry: Entry, name: str, figures: Mapping[str, float], largest: float) -> VarianceRow:
    run = entry.run
    difference, error = (figures.get(f"difference{end}") for end in ("", "_stderr"))
    sign = "+" if difference is not None and difference > 0 else ""
    return VarianceRow(
        entry=entry,
        name=name,
        is_chosen=difference is None,
        figures=tuple(_figure(run, part, figures) for part in (run.unit.metric, "L_0", "L_t")),
        difference="–" if difference is None else sign + plus_minus(difference, error),
        is_clear=difference is not None and error is not None and abs(difference) > 2 * error,
        bar=_bar(run, figures, largest),
    )


def _figure(run: Run, part: str, figures: Mapping[str, float]) -> str:
    return plus_minus(*(figures.get(f"{run.held_out}/{part}{end}") for end in ("", "_stderr")))


def _bar(run: Run, figures: Mapping[str, float], largest: float) -> tuple[tuple[float, str], ...]:
    values = {part: figures.get(f"{run.held_out}/{part}", 0.0) for part in PART_NAMES}
    if not run.is_discrete or largest <= 0 or min(values.values()) < 0:
        return ()
    return tuple((100 * value / largest, PART_COLOURS[part]) for part, value in values.items())
