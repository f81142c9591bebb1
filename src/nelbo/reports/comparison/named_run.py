"""Runs with the names that tables and charts give them, and their ledgers side by side."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nelbo.evaluation.ledger import disagreements
from nelbo.reports.numbers import cell
from nelbo.runs.run_folder import Run
from nelbo.text import printable


@dataclass(frozen=True)
class NamedRun:
    """A run and its name."""

    run: Run
    name: str


def folder_names(runs: Sequence[Run]) -> list[str]:
    """The part of each folder's path that the runs do not share, printable."""
    paths = [run.path.resolve() for run in runs]
    if len(paths) == 1:
        return [printable("/".join(paths[0].parts[-2:]))]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [printable(path.relative_to(shared)) for path in paths]


def shared_label(runs: Sequence[NamedRun]) -> str:
    """The unit of all runs; both units where they differ."""
    return " or ".join(sorted({named.run.unit.label for named in runs}))


def incomparable(runs: Sequence[NamedRun]) -> list[str]:
    """One line for each reason why the bounds cannot be compared; empty if they can."""
    found = [
        f"{name}: " + ", ".join(f"{r.name} {cell(r.run.ledger[name])}" for r in runs if name in r.run.ledger)
        for name in disagreements([named.run.ledger for named in runs])
    ]
    without = [named.name for named in runs if not named.run.ledger]
    if without:
        found.append(f"unknown, no ledger: {', '.join(without)}")
    return found


def ledger_rows(runs: Sequence[NamedRun]) -> list[tuple[str, list[str], bool]]:
    """Rows of the ledger: name, value in each run, whether the values differ."""
    found = [named.run.ledger for named in runs]
    names = list(dict.fromkeys(name for ledger in found for name in ledger))
    return [
        (
            name,
            [cell(ledger[name]) if name in ledger else "–" for ledger in found],
            any(ledger.get(name) != found[0].get(name) for ledger in found),
        )
        for name in names
    ]
