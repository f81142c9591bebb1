"""Comparing runs: what each measured, whether that is the same thing, and the differences from the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from string import ascii_uppercase

from nelbo.reports.comparison.choices import differing
from nelbo.reports.comparison.differences import Differences, paired, unpaired
from nelbo.reports.comparison.ledgers import incomparable
from nelbo.reports.comparison.named import NamedRun, folder_names
from nelbo.reports.comparison.remarks import remarks
from nelbo.runs.files import RunFolderError
from nelbo.runs.paths import EVALUATION, SUMMARY
from nelbo.runs.run_folder import Run


@dataclass(frozen=True)
class Compared(NamedRun):
    """A run among others; its name is a letter.

    Attributes:
        folder: what tells its folder from the others'.
        choices: what it does otherwise than they.
        differences: from the first run; None for the first, and where the runs cannot be compared.
    """

    folder: str
    choices: dict[str, str]
    differences: Differences | None


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Attributes:
        runs: the first of which the others are compared with.
        incomparable: why they cannot be compared; empty where they can.
        remarks: what to know before reading the differences.
    """

    runs: tuple[Compared, ...]
    incomparable: tuple[str, ...]
    remarks: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them.

    Args:
        runs: two or more.

    Raises:
        RunFolderError: for a run that is not finished, or a file that is broken.
    """
    for run in runs:
        _check_finished(run)
    named = [NamedRun(run, name) for run, name in zip(runs, _letters(), strict=False)]
    obstacles = incomparable(named)
    differences, without = from_first(named)
    columns = zip(named, folder_names(runs), differing(runs), differences, strict=True)
    return Comparison(
        runs=tuple(
            Compared(one.run, one.name, folder, chosen, less) for one, folder, chosen, less in columns
        ),
        incomparable=tuple(obstacles),
        remarks=() if obstacles else tuple(remarks(named, without)),
    )


def from_first(runs: Sequence[NamedRun]) -> tuple[list[Differences | None], list[str]]:
    """By how much each run is above the first, and the names of those that have no examples to pair.

    None for the first, and for all where they cannot be compared.

    Raises:
        RunFolderError: for a file that is broken.
    """
    found: list[Differences | None] = [None] * len(runs)
    if incomparable(runs):
        return found, []
    examples = [named.run.examples() for named in runs]
    first = examples[0]
    for i, (named, other) in enumerate(zip(runs[1:], examples[1:], strict=True), start=1):
        if first is None or other is None:
            found[i] = unpaired(runs[0].run, named.run)
        else:
            found[i] = paired(first, other, named.run.unit)
    return found, [named.name for named, table in zip(runs, examples, strict=True) if table is None]


def _check_finished(run: Run) -> None:
    """Raise for a run without a summary, or one in which no bound is."""
    if not run.summary:
        raise RunFolderError(f"{run.path}: not finished: there is no {SUMMARY} or {EVALUATION} in it")
    if run.held_out is None:
        raise RunFolderError(f"{run.path}: no bound was measured")


def _letters() -> Iterator[str]:
    """A, B, ..., Z, AA, AB, ..."""
    return ("".join(letters) for n in count(1) for letters in product(ascii_uppercase, repeat=n))
