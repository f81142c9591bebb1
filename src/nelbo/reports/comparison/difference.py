"""The difference between the bounds of two runs, part by part: paired by example where both have them."""

import math
from dataclasses import dataclass
from typing import Any

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.ledger import disagreements
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import Unit
from nelbo.reports.numbers import VISIBLE
from nelbo.runs.example_table import Examples, common_bins, t_bin_columns
from nelbo.runs.run_folder import Run, RunLikelihood

STANDARD_ERRORS = 2.0  # a larger difference is marked
RESULTS = ("num_evaluations", "stderr")  # entries of a ledger that are no choices


@dataclass(frozen=True)
class LikelihoodDifference:
    """A likelihood of one run minus that of another, in the unit of the bound.

    Attributes:
        is_paired: whether the difference was taken example by example.
        estimate: the difference; NaN where unknown.
        ledger: the entries that both ledgers have and in which they differ, of the other run and of this one.
    """

    is_paired: bool
    estimate: Estimate
    ledger: dict[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where unknown."""
        return {
            "paired": self.is_paired,
            **finite(self.estimate),
            "beyond_two_standard_errors": is_significant(self.estimate),
            "ledger": {name: list(values) for name, values in self.ledger.items()},
        }


@dataclass(frozen=True)
class Differences:
    """One run minus another, in the unit of the bound.

    Attributes:
        is_paired: whether the differences were taken example by example.
        parts: ``L_0``, ``L_t``, the bins of t, ``L_T`` and ``total``; NaN where unknown.
        likelihoods: those besides the bound that both runs have, by name.
    """

    is_paired: bool
    parts: dict[str, Estimate]
    likelihoods: dict[str, LikelihoodDifference]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where unknown."""
        parts = {
            name: finite(part) | {"beyond_two_standard_errors": is_significant(part)}
            for name, part in self.parts.items()
        }
        likelihoods = {name: found.to_dict() for name, found in self.likelihoods.items()}
        return {
            "paired": self.is_paired,
            "parts": parts,
            **({"likelihoods": likelihoods} if likelihoods else {}),
        }


def difference(first: Run, other: Run) -> Differences | None:
    """Other minus first; None if their bounds cannot be compared.

    Raises:
        RunFolderError: for a file that is damaged.
    """
    if not (first.ledger and other.ledger) or disagreements([first.ledger, other.ledger]):
        return None
    likelihoods = {
        name: _likelihood_difference(found, other.likelihoods[name])
        for name, found in first.likelihoods.items()
        if name in other.likelihoods and not disagreements([found.ledger, other.likelihoods[name].ledger])
    }
    if first.examples is None or other.examples is None:
        return Differences(False, _unpaired(first, other), likelihoods)
    return Differences(True, _paired(first.examples, other.examples, other.unit), likelihoods)


def is_significant(difference: Estimate) -> bool:
    """Whether it exceeds two standard errors, and is large enough to be printed."""
    size = abs(difference.mean)
    return size > STANDARD_ERRORS * difference.stderr and size >= VISIBLE


def finite(estimate: Estimate) -> dict[str, Any]:
    """Mean and standard error as plain values for JSON; None where they are not finite."""
    numbers = {"mean": estimate.mean, "stderr": estimate.stderr}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _likelihood_difference(first: RunLikelihood, other: RunLikelihood) -> LikelihoodDifference:
    """Other minus first, paired where the values of both are known example by example."""
    ledger = {
        name: (value, other.ledger[name])
        for name, value in first.ledger.items()
        if name not in RESULTS and name in other.ledger and value != other.ledger[name]
    }
    if first.examples is None or other.examples is None:
        return LikelihoodDifference(False, _independent(first.total, other.total), ledger)
    found = _in_unit(paired_difference(other.examples, first.examples), other.unit)
    return LikelihoodDifference(True, found, ledger)


def _independent(first: Estimate, other: Estimate) -> Estimate:
    """Other minus first: squared errors add up."""
    return Estimate(other.mean - first.mean, math.hypot(first.stderr, other.stderr))


def _in_unit(nats: Estimate, unit: Unit) -> Estimate:
    return Estimate(nats.mean * unit.per_nat, nats.stderr * unit.per_nat)


def _paired(first: Examples, other: Examples, unit: Unit) -> dict[str, Estimate]:
    """Other minus first on the same examples."""
    names = ("L_0", "L_t", *common_bins(first.columns, other.columns), "L_T", "total")
    return {name: _in_unit(paired_difference(other.part(name), first.part(name)), unit) for name in names}


def _unpaired(first: Run, other: Run) -> dict[str, Estimate]:
    """Other minus first from their summaries: squared errors add up, as for independent examples.

    A summary has the share of a bin of t, but not its error.
    """
    a, b = (
        {name: share * run.part(run.unit.metric).mean for name, share in run.shares(run.held_out).items()}
        for run in (first, other)
    )

    def difference(name: str) -> Estimate:
        return _independent(first.part(name), other.part(name))

    bins = common_bins(a, b) if t_bin_columns(a) and t_bin_columns(b) else []
    parts = {name: difference(name) for name in ("L_0", "L_t")}
    parts |= {name: Estimate(b.get(name, 0.0) - a.get(name, 0.0), math.nan) for name in bins}
    return parts | {"L_T": difference("L_T"), "total": difference(first.unit.metric)}
