"""The difference between the bounds of two runs, part by part: paired by example where both have them."""

import math
from dataclasses import dataclass
from typing import Any

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.ledger import disagreements
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import Unit
from nelbo.reports.numbers import VISIBLE
from nelbo.runs.example_table import Examples, common_bins, t_bins
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
            name: finite(part) | {"beyond_two_standard_errors": is_significant(part)}
            for name, part in self.parts.items()
        }
        return {"paired": self.is_paired, "parts": parts}


def difference(first: Run, other: Run) -> Differences | None:
    """Other minus first; None if their bounds cannot be compared.

    Raises:
        RunFolderError: for a file that is damaged.
    """
    if not (first.ledger and other.ledger) or disagreements([first.ledger, other.ledger]):
        return None
    if first.examples is None or other.examples is None:
        return _unpaired(first, other)
    return _paired(first.examples, other.examples, other.unit)


def is_significant(difference: Estimate) -> bool:
    """Whether it exceeds two standard errors, and is large enough to be printed."""
    size = abs(difference.mean)
    return size > STANDARD_ERRORS * difference.stderr and size >= VISIBLE


def finite(estimate: Estimate) -> dict[str, Any]:
    """Mean and standard error as plain values for JSON; None where they are not finite."""
    numbers = {"mean": estimate.mean, "stderr": estimate.stderr}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _paired(first: Examples, other: Examples, unit: Unit) -> Differences:
    """Other minus first on the same examples."""
    names = ("L_0", "L_t", *common_bins(first.columns, other.columns), "L_T", "total")
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

    bins = common_bins(a, b) if t_bins(a) and t_bins(b) else []
    parts = {name: difference(name) for name in ("L_0", "L_t")}
    parts |= {name: Estimate(b.get(name, 0.0) - a.get(name, 0.0), math.nan) for name in bins}
    parts |= {"L_T": difference("L_T"), "total": difference(first.unit.metric)}
    return Differences(is_paired=False, parts=parts)
