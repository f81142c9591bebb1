"""Runs with the names that tables and charts give them, and their ledgers side by side."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nelbo.evaluation.ledger import disagreements
from nelbo.reports.comparison.choices import typed_choices
from nelbo.reports.numbers import cell
from nelbo.runs.run_folder import Run
from nelbo.text import printable

MISSING = object()  # an entry that a ledger does not have
LONGEST_NAME = 60  # characters
MOST_NAMES = 8  # of the runs with one value


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


def run_names(runs: Sequence[Run]) -> list[str]:
    """The typed options in which the runs differ, where these are short and unlike; else their folders."""
    names = [" ".join(f"{name}={value}" for name, value in chosen.items()) for chosen in typed_choices(runs)]
    is_name = all(0 < len(name) <= LONGEST_NAME for name in names) and len(set(names)) == len(names)
    return names if is_name else folder_names(runs)


def shared_label(runs: Sequence[NamedRun]) -> str:
    """The unit of all runs; both units where they differ."""
    return " or ".join(sorted({named.run.unit.label for named in runs}))


def chain_label(runs: Sequence[Run]) -> str:
    """What numbers the rows of step tables: t, and in continuous time bins of u or steps of a chain."""
    return " or ".join(sorted({_chain_label(run.ledger) for run in runs}))


def _chain_label(ledger: Mapping[str, Any]) -> str:
    if ledger.get("T", MISSING) is not None:
        return "t"
    return "bin of u" if ledger.get("K") is None else "step of the chain"


def incomparable(runs: Sequence[NamedRun]) -> list[str]:
    """One line for each reason why the bounds cannot be compared; empty if they can."""
    found = [
        f"{name}: {by_value(runs, lambda ledger, name=name: ledger.get(name, MISSING))}"
        for name in disagreements([named.run.ledger for named in runs])
    ]
    without = [named.name for named in runs if not named.run.ledger]
    if without:
        found.append(f"unknown, no ledger: {', '.join(without)}")
    return found


def by_value(runs: Sequence[NamedRun], value: Callable[[Mapping[str, Any]], Any]) -> str:
    """``A C x, B y``: the names of the runs with each value of their ledgers; MISSING is left out."""
    names: dict[str, list[str]] = {}
    for named in runs:
        found = value(named.run.ledger)
        if found is not MISSING:
            names.setdefault(cell(found), []).append(named.name)
    return ", ".join(f"{_some(who)} {found}" for found, who in names.items())


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return " ".join(names) if more <= 0 else f"{' '.join(names[:MOST_NAMES])} and {more} more"


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
