"""Comparison of runs with the first of them: the bounds, their differences part by part, and JSON."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from string import ascii_uppercase
from typing import Any

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import PARTS, Unit
from nelbo.reports.comparison.choices import differing
from nelbo.reports.comparison.named_run import NamedRun, folder_names, incomparable
from nelbo.reports.comparison.remarks import remarks
from nelbo.reports.numbers import VISIBLE
from nelbo.runs.example_table import Examples, t_bins
from nelbo.runs.files import RunFolderError
from nelbo.runs.paths import EVALUATION, SUMMARY
from nelbo.runs.run_folder import Run

STANDARD_ERRORS = 2.0  # a larger difference is marked


@dataclass(frozen=True)
class Differences:
    """One run minus another, in the unit of the bound.

    Attributes:
        is_paired: whether the differences were taken example by example.
        parts: ``L_0``, ``L_t``, the bins of t, ``L_T`` and ``total``; NaN where unknown.
    """

    is_paired: bool
    parts: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where unknown."""
        parts = {
            name: _finite(part) | {"beyond_two_standard_errors": is_significant(part)}
            for name, part in self.parts.items()
        }
        return {"paired": self.is_paired, "parts": parts}


@dataclass(frozen=True)
class ComparedRun(NamedRun):
    """A run of a comparison; its name is a letter.

    Attributes:
        folder: the part of its path that the runs do not share.
        choices: its options that are not the same in all runs.
        differences: from the first run; None for the first, and where the runs cannot be compared.
    """

    folder: str
    choices: dict[str, str]
    differences: Differences | None

    def to_dict(self) -> dict[str, Any]:
        """The run and its bound as plain values for JSON, in its own unit; None where unknown."""
        run = self.run
        bound = {"total": run.part(run.unit.metric)} | {name: run.part(name) for name in PARTS}
        return {
            "name": self.name,
            "folder": str(run.path),
            "split": run.held_out,
            "unit": run.unit.label,
            "bound": {name: _finite(part) for name, part in bound.items()},
            "choices": self.choices,
            "ledger": run.ledger,
        }


@dataclass(frozen=True)
class Comparison:
    """Two or more runs and their differences from the first.

    Attributes:
        runs: the first is the baseline.
        incomparable: why they cannot be compared; empty where they can.
        remarks: how to interpret the differences.
    """

    runs: tuple[ComparedRun, ...]
    incomparable: tuple[str, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the unit of each run; None where unknown."""
        return {
            "incomparable": list(self.incomparable),
            "remarks": list(self.remarks),
            "runs": [compared.to_dict() for compared in self.runs],
            "differences": [
                {"run": compared.name, "from": self.runs[0].name, **compared.differences.to_dict()}
                for compared in self.runs
                if compared.differences is not None
            ],
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare two or more runs with the first of them.

    Raises:
        RunFolderError: for a run that is not finished, or a file that is damaged.
    """
    for run in runs:
        if not run.summary:
            raise RunFolderError(f"{run.path}: not finished: there is no {SUMMARY} or {EVALUATION} in it")
        if run.held_out is None:
            raise RunFolderError(f"{run.path}: no bound was measured")
    named = [NamedRun(run, name) for run, name in zip(runs, _letters(), strict=False)]
    reasons = incomparable(named)
    differences, without_examples = from_first(named)
    return Comparison(
        runs=tuple(
            ComparedRun(one.run, one.name, folder, choices, difference)
            for one, folder, choices, difference in zip(
                named, folder_names(runs), differing(runs), differences, strict=True
            )
        ),
        incomparable=tuple(reasons),
        remarks=() if reasons else tuple(remarks(named, without_examples)),
    )


def from_first(runs: Sequence[NamedRun]) -> tuple[list[Differences | None], list[str]]:
    """The difference of each run from the first, and the names of the runs without examples.parquet.

    The difference is None for the first run, and for all runs if they cannot be compared.

    Raises:
        RunFolderError: for a file that is damaged.
    """
    found: list[Differences | None] = [None] * len(runs)
    if incomparable(runs):
        return found, []
    examples = [named.run.examples for named in runs]
    first = examples[0]
    for i, (named, other) in enumerate(zip(runs[1:], examples[1:], strict=True), start=1):
        if first is None or other is None:
            found[i] = _unpaired(runs[0].run, named.run)
        else:
            found[i] = _paired(first, other, named.run.unit)
    return found, [named.name for named, table in zip(runs, examples, strict=True) if table is None]


def is_significant(difference: Estimate) -> bool:
    """Whether it exceeds two standard errors, and is large enough to be printed."""
    size = abs(difference.mean)
    return size > STANDARD_ERRORS * difference.stderr and size >= VISIBLE


def _paired(first: Examples, other: Examples, unit: Unit) -> Differences:
    """Other minus first on the same examples."""
    names = ("L_0", "L_t", *t_bins({*first.columns, *other.columns}), "L_T", "total")
    found = {name: paired_difference(other.part(name), first.part(name)) for name in names}
    return Differences(
        is_paired=True,
        parts={name: Estimate(e.mean * unit.per_nat, e.stderr * unit.per_nat) for name, e in found.items()},
    )


def _unpaired(first: Run, other: Run) -> Differences:
    """Other minus first from their summaries: squared errors add up, as for independent examples.

    A summary has the share of a bin of t, but not its error.
    """
    a, b = (
        {name: share * run.part(run.unit.metric).mean for name, share in run.shares(run.held_out).items()}
        for run in (first, other)
    )

    def difference(name: str) -> Estimate:
        x, y = first.part(name), other.part(name)
        return Estimate(y.mean - x.mean, math.hypot(x.stderr, y.stderr))

    bins = t_bins({*a, *b}) if t_bins(a) and t_bins(b) else []
    parts = {name: difference(name) for name in ("L_0", "L_t")}
    parts |= {name: Estimate(b.get(name, 0.0) - a.get(name, 0.0), math.nan) for name in bins}
    parts |= {"L_T": difference("L_T"), "total": difference(first.unit.metric)}
    return Differences(is_paired=False, parts=parts)


def _finite(estimate: Estimate) -> dict[str, Any]:
    numbers = {"mean": estimate.mean, "stderr": estimate.stderr}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _letters() -> Iterator[str]:
    """A, B, ..., Z, AA, AB, ..."""
    return ("".join(letters) for n in count(1) for letters in product(ascii_uppercase, repeat=n))
