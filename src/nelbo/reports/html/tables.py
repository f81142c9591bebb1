"""Rows of the tables of runs and of reverse variances."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.choices import differing
from nelbo.reports.comparison.compare import from_first, is_significant
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import PART_COLOURS
from nelbo.reports.numbers import duration, plus_minus
from nelbo.runs.run_folder import Run

MOST_CHOICES = 8  # in the table of runs


@dataclass(frozen=True)
class DifferenceCell:
    """A difference with its error as text; ``colour`` is ``better``, ``worse``, or empty."""

    text: str
    colour: str


@dataclass(frozen=True)
class RunRow:
    """A run in the table of runs: bound and parts, best validation, and the choices that differ.

    Attributes:
        entry: the run.
        split: on which it was measured.
        values: total, L_0, L_t, L_T.
        difference: from the first run.
        best: the lowest validation bound.
        choices: options that are not the same in all runs, the first few.
        more: how many choices are left out.
        time: of the training.
    """

    entry: Entry
    split: str
    values: tuple[str, ...]
    difference: DifferenceCell
    best: str
    choices: dict[str, str]
    more: int
    time: str


@dataclass(frozen=True)
class VarianceRow:
    """The bound of an evaluation with one reverse variance, from the same network evaluations.

    Attributes:
        entry: the evaluation.
        name: of the variance.
        is_chosen: whether it is the variance of the evaluation.
        values: total, L_0, L_t.
        difference: from the chosen variance.
        bar: width of each part in percent of the largest total, and its colour; empty for a density's bound.
    """

    entry: Entry
    name: str
    is_chosen: bool
    values: tuple[str, ...]
    difference: DifferenceCell
    bar: tuple[tuple[float, str], ...]


def run_rows(entries: Sequence[Entry]) -> list[RunRow]:
    """A row for each run."""
    differences = [found and found.parts["total"] for found in from_first(entries)[0]]
    choices_of = differing([entry.run for entry in entries])
    return [_run_row(*row) for row in zip(entries, choices_of, differences, strict=True)]


def _run_row(entry: Entry, choices: dict[str, str], difference: Estimate | None) -> RunRow:
    run, split = entry.run, entry.run.held_out
    errors = {name: run.final(f"{split}/{name}_stderr") for name in (run.unit.metric, "L_0", "L_t")}
    errors["L_T"] = None
    return RunRow(
        entry=entry,
        split=split or "–",
        values=tuple(plus_minus(run.final(f"{split}/{name}"), error) for name, error in errors.items()),
        difference=_difference(difference),
        best=plus_minus(*(run.best_validation() or (None, None))),
        choices=dict(list(choices.items())[:MOST_CHOICES]),
        more=max(len(choices) - MOST_CHOICES, 0),
        time=duration(run.summary.get("train_seconds")),
    )


def variance_rows(entries: Sequence[Entry]) -> list[VarianceRow]:
    """A row for each variance of each evaluation with more than one variance."""
    found = [
        (entry, name, metrics)
        for entry in entries
        if len(entry.run.summary.get("variances", {})) > 1
        for name, metrics in entry.run.summary["variances"].items()
    ]
    totals = [
        metrics.get(f"{entry.run.held_out}/{entry.run.unit.metric}", 0.0) for entry, _, metrics in found
    ]
    return [_variance_row(*row, largest=max(totals)) for row in found]


def _variance_row(entry: Entry, name: str, metrics: Mapping[str, Any], largest: float) -> VarianceRow:
    run, split = entry.run, entry.run.held_out
    difference = None
    if "difference" in metrics:
        error = metrics["difference_stderr"]
        difference = Estimate(metrics["difference"], math.nan if error is None else error)
    return VarianceRow(
        entry=entry,
        name=name,
        is_chosen=difference is None,
        values=tuple(
            plus_minus(metrics.get(f"{split}/{part}"), metrics.get(f"{split}/{part}_stderr"))
            for part in (run.unit.metric, "L_0", "L_t")
        ),
        difference=_difference(difference),
        bar=_bar(run, metrics, largest),
    )


def _difference(difference: Estimate | None) -> DifferenceCell:
    if difference is None:
        return DifferenceCell("–", "")
    colour = "worse" if difference.mean > 0 else "better"
    return DifferenceCell(
        plus_minus(difference.mean, difference.stderr, sign=True),
        colour if is_significant(difference) else "",
    )


def _bar(run: Run, metrics: Mapping[str, float], largest: float) -> tuple[tuple[float, str], ...]:
    values = {part: metrics.get(f"{run.held_out}/{part}", 0.0) for part in PARTS}
    if not run.is_discrete or largest <= 0 or min(values.values()) < 0:
        return ()
    return tuple((100 * value / largest, PART_COLOURS[part]) for part, value in values.items())
