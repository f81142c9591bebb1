"""Averages over runs that differ in their seed alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from nelbo.evaluation.accumulator import Estimate


@dataclass(frozen=True)
class SeedEstimate:
    """The mean of a value over n runs that differ in their seed, in the unit of the value.

    Attributes:
        mean: over the runs.
        spread: standard deviation of the runs, with n - 1 degrees of freedom; NaN for one run.
        within: error within a run, the root mean square of the runs' standard errors; NaN if one is unknown.
        count: number of runs.
    """

    mean: float
    spread: float
    within: float
    count: int

    @classmethod
    def of(cls, runs: Sequence[Estimate]) -> "SeedEstimate":
        """The average of one estimate per run."""
        values = [run.mean for run in runs]
        return cls(
            mean=fmean(values),
            spread=stdev(values) if len(values) > 1 else math.nan,
            within=math.sqrt(fmean(run.stderr**2 for run in runs)),
            count=len(values),
        )

    @property
    def stderr(self) -> float:
        """Standard error of the mean over the seeds, spread / sqrt(n)."""
        return self.spread / math.sqrt(self.count)

    def minus(self, other: "SeedEstimate") -> "SeedEstimate":
        """The difference of two independent means: their squared errors add up.

        Its spread is such that its standard error is that of the difference.
        """
        count = min(self.count, other.count)
        return SeedEstimate(
            mean=self.mean - other.mean,
            spread=math.hypot(self.stderr, other.stderr) * math.sqrt(count),
            within=math.hypot(self.within, other.within),
            count=count,
        )
