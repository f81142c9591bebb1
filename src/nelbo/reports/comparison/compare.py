"""Comparison of runs with the first of them: the bounds, their differences part by part, and JSON."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, product
from string import ascii_uppercase
from typing import Any

from nelbo.evaluation.seeds import SeedEstimate
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.choices import differing
from nelbo.reports.comparison.difference import Differences, difference, finite
from nelbo.reports.comparison.named_run import NamedRun, folder_names, incomparable
from nelbo.reports.comparison.remarks import remarks
from nelbo.reports.comparison.seeds import SeedGroup, group_by_seed
from nelbo.runs.files import RunFolderError
from nelbo.runs.paths import EVALUATION, SUMMARY
from nelbo.runs.run_folder import Run


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
        likelihoods = {name: finite(found.total) for name, found in run.likelihoods.items()}
        return {
            "name": self.name,
            "folder": str(run.path),
            "split": run.held_out,
            "unit": run.unit.label,
            "bound": {name: finite(part) for name, part in bound.items()},
            **({"likelihoods": likelihoods} if likelihoods else {}),
            "choices": self.choices,
            "ledger": run.ledger,
        }


@dataclass(frozen=True)
class Comparison:
    """Two or more runs and their differences from the first.

    Attributes:
        runs: the first is the baseline.
        incomparable: why they cannot all be compared; empty where they can.
        remarks: how to interpret the differences.
        groups: of runs that differ in their seed alone; empty if there are none.
    """

    runs: tuple[ComparedRun, ...]
    incomparable: tuple[str, ...]
    remarks: tuple[str, ...]
    groups: tuple[SeedGroup, ...] = ()

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
            **({"seeds": [self._group_to_dict(group) for group in self.groups]} if self.groups else {}),
        }

    def _group_to_dict(self, group: SeedGroup) -> dict[str, Any]:
        first = self.groups[0]
        found = None if group is first else group.differences_from(first)
        differences = {} if group is first else group.likelihood_differences_from(first)
        likelihoods = {
            name: {
                "mean": seed_values(value),
                "difference": seed_values(differences[name]) if name in differences else None,
            }
            for name, value in group.likelihoods.items()
        }
        return {
            "runs": [named.name for named in group.runs],
            "seeds": list(group.seeds),
            "choices": dict(group.choices),
            "total": seed_values(group.total),
            **({"likelihoods": likelihoods} if likelihoods else {}),
            "differences": found and {name: seed_values(part) for name, part in found.items()},
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare two or more runs with the first of them.

    Raises:
        RunFolderError: for a run that is not finished, or a file that is damaged.
    """
    for run in runs:
        check_measured(run)
    named = [NamedRun(run, name) for run, name in zip(runs, _letters(), strict=False)]
    differences = differences_from_first(named)
    comparable = [
        named[0],
        *(one for one, found in zip(named, differences, strict=True) if found is not None),
    ]
    return Comparison(
        runs=tuple(
            ComparedRun(one.run, one.name, folder, choices, difference)
            for one, folder, choices, difference in zip(
                named, folder_names(runs), differing(runs), differences, strict=True
            )
        ),
        incomparable=tuple(incomparable(named)),
        remarks=tuple(remarks(comparable)) if len(comparable) > 1 else (),
        groups=tuple(group_by_seed(named)),
    )


def check_measured(run: Run) -> None:
    """Check that a run is finished and has a bound.

    Raises:
        RunFolderError: when it is not, or has none.
    """
    if not run.summary:
        raise RunFolderError(f"{run.path}: not finished: there is no {SUMMARY} or {EVALUATION} in it")
    if run.held_out is None:
        raise RunFolderError(f"{run.path}: no bound was measured")


def seed_values(estimate: SeedEstimate) -> dict[str, Any]:
    """Plain values for JSON; None where they are not finite."""
    numbers = asdict(estimate) | {"stderr": estimate.stderr, "seed_stderr": estimate.seed_stderr}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def differences_from_first(runs: Sequence[NamedRun]) -> list[Differences | None]:
    """The difference of each run from the first; None for the first, and for runs that cannot be compared.

    Raises:
        RunFolderError: for a file that is damaged.
    """
    return [None, *(difference(runs[0].run, named.run) for named in runs[1:])]


def _letters() -> Iterator[str]:
    """A, B, ..., Z, AA, AB, ..."""
    return ("".join(letters) for n in count(1) for letters in product(ascii_uppercase, repeat=n))
