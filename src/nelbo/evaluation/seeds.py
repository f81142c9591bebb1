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
            The runs share the test examples, so the mean over the runs does not reduce it.
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
    def seed_stderr(self) -> float:
        """The part of the standard error that more seeds would remove, spread / sqrt(n); NaN for one run."""
        return self.spread / math.sqrt(self.count)

    @property
    def stderr(self) -> float:
        """Standard error of the mean over seeds and test examples; of one run the error within it."""
        return self.within if self.count == 1 else math.hypot(self.seed_stderr, self.within)

    def minus(self, other: "SeedEstimate") -> "SeedEstimate":
        """The difference of two independent means: their squared errors add up.

        Its spread is such that its ``seed_stderr`` is that of the difference.
        """
        count = min(self.count, other.count)
        return SeedEstimate(
            mean=self.mean - other.mean,
            spread=math.hypot(self.seed_stderr, other.seed_stderr) * math.sqrt(count),
            within=math.hypot(self.within, other.within),
            count=count,
        )
