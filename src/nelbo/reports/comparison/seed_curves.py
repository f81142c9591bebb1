"""Curves of a group of runs: their mean, and the standard deviation over their seeds."""

from dataclasses import dataclass

import numpy as np

from nelbo.reports.comparison.seeds import SeedGroup
from nelbo.runs.bins import binned, log_bins


@dataclass(frozen=True)
class SeedCurve:
    """A curve over n runs, in the unit of the bound.

    Attributes:
        x: (P,) optimizer steps, or t.
        mean: (P,) over the runs.
        spread: (P,) standard deviation over the runs, with n - 1 degrees of freedom; NaN for one run.
    """

    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, runs: np.ndarray) -> "SeedCurve":
        """The curve of runs (n, P)."""
        spread = runs.std(0, ddof=1) if len(runs) > 1 else np.full(runs.shape[1], np.nan)
        return cls(x, runs.mean(0), spread)


def validation_curve(group: SeedGroup) -> SeedCurve | None:
    """The validation bound against steps, where all runs were validated; None without a common step."""
    found = [named.run.metrics.get(f"val/{named.run.unit.metric}") for named in group.runs]
    series = [one for one in found if one is not None]
    if len(series) < len(found):
        return None
    steps = series[0].steps
    for one in series[1:]:
        steps = np.intersect1d(steps, one.steps)
    if not len(steps):
        return None
    return SeedCurve.of(steps, np.stack([one.values[np.isin(one.steps, steps)] for one in series]))


def step_curve(group: SeedGroup) -> SeedCurve | None:
    """L_t per step against t, in bins of log t, without L_0; None for runs without a table."""
    split, per_nat = group.first.held_out, group.first.unit.per_nat
    assert split is not None
    found = [named.run.last_step_table(split) for named in group.runs]
    tables = [table for table in found if table is not None]
    if len(tables) < len(found) or any(len(table.t) != len(tables[0].t) for table in tables):
        return None
    bins = log_bins(tables)
    return SeedCurve.of(
        bins.centre[1:], per_nat * np.stack([binned(table, bins).mean[1:] for table in tables])
    )
