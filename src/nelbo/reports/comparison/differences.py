"""By how much the bound of one run is above or below that of another, part by part."""

import math
from dataclasses import dataclass

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import Unit
from nelbo.runs.example_table import Examples, t_bins
from nelbo.runs.run_folder import Run

STANDARD_ERRORS = 2.0  # beyond which a difference is marked
SMALLEST = 0.5e-4  # in the unit of the bound; what is below is printed as 0


@dataclass(frozen=True)
class Difference:
    """A difference of two means and its standard error, in the unit of the bound; NaN where not known."""

    mean: float
    stderr: float

    @property
    def is_clear(self) -> bool:
        """Whether it is beyond two standard errors, and large enough to be seen."""
        return abs(self.mean) > STANDARD_ERRORS * self.stderr and abs(self.mean) >= SMALLEST


@dataclass(frozen=True)
class Differences:
    """One run less another.

    Attributes:
        is_paired: whether they were taken example by example.
        parts: ``L_0``, ``L_t``, the t_bins of t, ``L_T`` and ``total``.
    """

    is_paired: bool
    parts: dict[str, Difference]


def paired(first: Examples, other: Examples, unit: Unit) -> Differences:
    """Other less first, on the same examples."""
    names = ("L_0", "L_t", *t_bins({*first.columns, *other.columns}), "L_T", "total")
    found = {name: paired_difference(other.part(name), first.part(name)) for name in names}
    return Differences(
        is_paired=True,
        parts={
            name: Difference(estimate.mean * unit.per_nat, estimate.stderr * unit.per_nat)
            for name, estimate in found.items()
        },
    )


def unpaired(first: Run, other: Run) -> Differences:
    """Other less first, from their summaries: errors add in squares, as if the examples were others.

    Of a decade a summary has the share, and not the error.
    """
    shares = [_shares(run) for run in (first, other)]
    in_decades = t_bins({*shares[0], *shares[1]}) if all(shares) else []
    parts = {name: _difference(first, other, name) for name in ("L_0", "L_t")}
    parts |= {
        name: Difference(shares[1].get(name, 0.0) - shares[0].get(name, 0.0), math.nan) for name in in_decades
    }
    parts["L_T"] = _difference(first, other, "L_T")
    parts["total"] = _difference(first, other, first.unit.metric)
    return Differences(is_paired=False, parts=parts)


def figure(run: Run, name: str) -> Estimate:
    """A part of a run's bound and its standard error, in the unit of the bound; NaN where not known."""
    value, error = (run.final(f"{run.held_out}/{name}{end}") for end in ("", "_stderr"))
    return Estimate(math.nan if value is None else value, math.nan if error is None else error)


def _difference(first: Run, other: Run, name: str) -> Difference:
    a, b = figure(first, name), figure(other, name)
    return Difference(b.mean - a.mean, math.hypot(a.stderr, b.stderr))


def _shares(run: Run) -> dict[str, float]:
    """What each decade adds to the bound; nothing where shares are not known."""
    prefix = f"{run.held_out}/share/"
    total = figure(run, run.unit.metric).mean
    names = [name.removeprefix(prefix) for name in run.summary if name.startswith(prefix)]
    return {name: total * run.summary[prefix + name] for name in t_bins(names)}
