"""Rows of the tables of runs and of reverse variances."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.seeds import SeedEstimate
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.choices import differing, first_choices
from nelbo.reports.comparison.difference import Differences, is_significant
from nelbo.reports.comparison.seeds import SeedGroup
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import PART_COLOURS, RUN_COLOURS
from nelbo.reports.numbers import cell, duration, plus_minus, short
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
        choices: options that are not the same in all runs and not in its name, the first few.
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
class SeedRow:
    """A group of runs that differ in their seed alone.

    Attributes:
        name: options in which the groups differ.
        seeds: of its runs.
        colour: in the charts.
        total: mean over the seeds and its standard error.
        spread: standard deviation of the runs.
        within: standard error within a run.
        parts: L_0, L_t, L_T: mean over the seeds and its standard error.
        difference: of the total from the first group.
    """

    name: str
    seeds: str
    colour: str
    total: str
    spread: str
    within: str
    parts: tuple[str, ...]
    difference: DifferenceCell


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


@dataclass(frozen=True)
class BaselineRow:
    """The size of the examples of an evaluation in a lossless image format, or their bound.

    Attributes:
        entry: the evaluation.
        name: of the format.
        single: bits/dim of single files.
        mosaic: bits/dim of one mosaic.
        note: why it was not measured.
    """

    entry: Entry
    name: str
    single: str
    mosaic: str
    note: str = ""


@dataclass(frozen=True)
class LikelihoodRow:
    """A likelihood of an evaluation, on the same examples as its bound.

    Attributes:
        entry: the evaluation.
        name: of the likelihood.
        value: -log p.
        mc_stderr: Monte Carlo part of its error.
        difference: from the bound.
        details: entries of its ledger that the bound does not have.
    """

    entry: Entry
    name: str
    value: str
    mc_stderr: str
    difference: DifferenceCell
    details: str


@dataclass(frozen=True)
class SampleRow:
    """Bounds of -log p from both sides, on samples of the model.

    Attributes:
        entry: the evaluation.
        name: of the likelihood.
        values: lower bound, upper bound and gap.
        details: entries of its ledger that the bound does not have.
    """

    entry: Entry
    name: str
    values: tuple[str, ...]
    details: str


def run_rows(entries: Sequence[Entry], differences: Sequence[Differences | None]) -> list[RunRow]:
    """A row for each run, the lowest bound first.

    Args:
        entries: the runs of the page.
        differences: of each run from the first one.
    """
    totals = [found and found.parts["total"] for found in differences]
    choices_of = differing([entry.run for entry in entries])
    rows = [_run_row(*row) for row in zip(entries, choices_of, totals, strict=True)]
    rows[0] = replace(rows[0], difference=DifferenceCell("first" if any(differences) else "–", ""))
    return sorted(rows, key=lambda row: _total(row.entry.run))


def _total(run: Run) -> float:
    total = run.part(run.unit.metric).mean
    return total if math.isfinite(total) else math.inf


def _run_row(entry: Entry, choices: dict[str, str], difference: Estimate | None) -> RunRow:
    run, split = entry.run, entry.run.held_out
    errors = {name: run.final(f"{split}/{name}_stderr") for name in (run.unit.metric, "L_0", "L_t")}
    errors["L_T"] = None
    in_name = entry.name.split(" ")
    choices = {name: value for name, value in choices.items() if f"{name}={value}" not in in_name}
    shown, more = first_choices(choices, MOST_CHOICES)
    return RunRow(
        entry=entry,
        split=split or "–",
        values=tuple(plus_minus(run.final(f"{split}/{name}"), error) for name, error in errors.items()),
        difference=_difference(difference),
        best=plus_minus(*(run.best_validation() or (None, None))),
        choices=shown,
        more=more,
        time=duration(run.summary.get("train_seconds")),
    )


def seed_rows(groups: Sequence[SeedGroup]) -> list[SeedRow]:
    """A row for each group of runs that differ in their seed alone; differences are from the first group."""
    return [_seed_row(number, group, groups[0]) for number, group in enumerate(groups)]


def _seed_row(number: int, group: SeedGroup, first: SeedGroup) -> SeedRow:
    total = group.total
    found = None if group is first else group.differences_from(first)
    difference = None if found is None else found["total"]
    return SeedRow(
        name=group.name,
        seeds=", ".join(map(str, group.seeds)),
        colour=RUN_COLOURS[number % len(RUN_COLOURS)],
        total=over_seeds(total),
        spread=short(total.spread, 2),
        within=short(total.within, 2),
        parts=tuple(over_seeds(group.part(part)) for part in PARTS),
        difference=DifferenceCell("first" if group is first else "–", "")
        if difference is None
        else _difference(Estimate(difference.mean, difference.stderr)),
    )


def over_seeds(estimate: SeedEstimate) -> str:
    """The mean and its standard error over seeds and test examples."""
    return plus_minus(estimate.mean, estimate.stderr)


def likelihood_rows(entries: Sequence[Entry]) -> list[LikelihoodRow]:
    """The bound and the other likelihoods of each evaluation that measured some."""
    rows: list[LikelihoodRow] = []
    for entry in entries:
        found: dict[str, dict[str, Any]] = entry.run.summary.get("likelihoods", {})
        if found:
            run = entry.run
            total = run.part(run.unit.metric)
            rows.append(
                LikelihoodRow(
                    entry,
                    "variational bound",
                    plus_minus(total.mean, total.stderr),
                    _in_unit(run.final(f"{run.held_out}/{run.unit.metric}_stderr_monte_carlo"), 1.0),
                    DifferenceCell("–", ""),
                    "",
                )
            )
        rows += [_likelihood_row(entry, likelihood) for likelihood in found.values()]
    return rows


def _likelihood_row(entry: Entry, likelihood: Mapping[str, Any]) -> LikelihoodRow:
    run = entry.run
    difference = None
    if likelihood.get("difference") is not None:
        spread = likelihood.get("difference_stderr")
        difference = Estimate(likelihood["difference"], math.nan if spread is None else spread)
    per_nat = run.unit.per_nat
    return LikelihoodRow(
        entry=entry,
        name=likelihood["label"],
        value=_value_in_unit(likelihood, "nats", per_nat),
        mc_stderr=_in_unit(likelihood.get("nats_stderr_monte_carlo"), per_nat),
        difference=_difference(difference),
        details=_own_entries(run, likelihood),
    )


def sample_rows(entries: Sequence[Entry]) -> list[SampleRow]:
    """The likelihoods of samples of each evaluation that measured some."""
    return [
        SampleRow(
            entry=entry,
            name=found["label"],
            values=(
                _value_in_unit(found, "lower", 1.0),
                _value_in_unit(found, "nats", entry.run.unit.per_nat),
                _value_in_unit(found, "gap", 1.0),
            ),
            details=_own_entries(entry.run, found),
        )
        for entry in entries
        for found in entry.run.summary.get("on_samples", {}).values()
    ]


def baseline_rows(entries: Sequence[Entry]) -> list[BaselineRow]:
    """The bound of each evaluation with baselines, and the baselines."""
    rows: list[BaselineRow] = []
    for entry in entries:
        found: dict[str, dict[str, Any]] = entry.run.summary.get("baselines", {})
        if found:
            bound = short(entry.run.part(entry.run.unit.metric).mean)
            rows.append(BaselineRow(entry, "variational bound", bound, bound))
        for baseline in found.values():
            single, mosaic = (
                _in_unit(baseline.get(name), 1.0) for name in ("bits_per_dim", "mosaic_bits_per_dim")
            )
            rows.append(BaselineRow(entry, baseline["label"], single, mosaic, baseline.get("missing") or ""))
    return rows


def _own_entries(run: Run, likelihood: Mapping[str, Any]) -> str:
    """The entries of a likelihood's ledger that the bound does not have."""
    own = {name: x for name, x in likelihood["ledger"].items() if name not in run.ledger}
    return ", ".join(f"{name}: {cell(x)}" for name, x in own.items())


def _value_in_unit(likelihood: Mapping[str, Any], name: str, factor: float) -> str:
    value, error = likelihood.get(name), likelihood.get(f"{name}_stderr")
    return plus_minus(
        None if value is None else value * factor, math.nan if error is None else error * factor
    )


def _in_unit(nats: float | None, per_nat: float) -> str:
    return "–" if nats is None else short(nats * per_nat)


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
