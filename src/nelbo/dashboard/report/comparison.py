"""Several runs beside each other: what differs, and whether their figures may be compared at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nelbo.dashboard.report.entry import Entry
from nelbo.dashboard.report.numbers import cell, duration, plus_minus
from nelbo.dashboard.run_folder import Run
from nelbo.evaluation.ledger import disagreements

MOST_CHOICES = 8  # named in the table of runs
CLASS = "._target_"
# where a run's files are, which differs always
IGNORED = ("run_dir", "trainer.default_root_dir")


@dataclass(frozen=True)
class Row:
    """A run in the table of runs."""

    entry: Entry
    split: str
    figures: tuple[str, ...]
    best: str
    choices: dict[str, str]
    more: int
    time: str


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Every run with its bound, parts, best validation, and the choices that set it apart."""
    differing = differing_choices([entry.run.config for entry in entries])
    return [
        Row(
            entry=entry,
            split=entry.held_out or "–",
            figures=tuple(
                plus_minus(
                    entry.run.final(f"{entry.held_out}/{name}"),
                    entry.run.final(f"{entry.held_out}/{name}_stderr"),
                )
                for name in (entry.run.unit.metric, "L_0", "L_t", "L_T")
            ),
            best=_best_validation(entry.run),
            choices=dict(list(choices.items())[:MOST_CHOICES]),
            more=max(len(choices) - MOST_CHOICES, 0),
            time=duration(entry.run.summary.get("train_seconds")),
        )
        for entry, choices in zip(entries, differing, strict=True)
    ]


def incomparable(entries: Sequence[Entry]) -> list[str]:
    """Sentences that say why figures may not be compared; none if they may."""
    found = [
        f"{name}: "
        + ", ".join(f"{e.name} {cell(e.run.ledger[name])}" for e in entries if name in e.run.ledger)
        for name in disagreements([entry.run.ledger for entry in entries])
    ]
    without = [entry.name for entry in entries if not entry.run.ledger]
    if without:
        found.append(f"not known, for want of a ledger: {', '.join(without)}")
    return found


def ledgers(entries: Sequence[Entry]) -> list[tuple[str, list[str], bool]]:
    """Rows of the ledger: name, value in each run, whether they differ."""
    found = [entry.run.ledger for entry in entries]
    names = list(dict.fromkeys(name for ledger in found for name in ledger))
    return [
        (
            name,
            [cell(ledger[name]) if name in ledger else "–" for ledger in found],
            any(ledger.get(name) != found[0].get(name) for ledger in found),
        )
        for name in names
    ]


def differing_choices(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each configuration, the options whose values are not the same in all.

    A node that makes another class is named by its class alone: the options of different classes are not
    held against each other.
    """
    flat = [_flat(config) for config in configs]
    keys = dict.fromkeys(key for options in flat for key in options)
    differ = [
        key
        for key in keys
        if key not in IGNORED and any(options.get(key) != flat[0].get(key) for options in flat)
    ]
    classes = [key for key in differ if key.endswith(CLASS)]
    nodes = tuple(key.removesuffix("_target_") for key in classes)
    rest = [key for key in differ if not key.startswith(nodes)] if nodes else differ
    return [
        {key.removesuffix(CLASS): _value(key, options) for key in (*classes, *rest) if key in options}
        for options in flat
    ]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _value(key: str, options: Mapping[str, Any]) -> str:
    value = options[key]
    return str(value).rpartition(".")[2] if key.endswith(CLASS) else cell(value)


def _best_validation(run: Run) -> str:
    series = run.metrics.get(f"val/{run.unit.metric}")
    if series is None:
        return "–"
    best = int(series.values.argmin())
    error = run.metrics.get(f"val/{run.unit.metric}_stderr")
    known = error is not None and len(error.values) == len(series.values)
    return plus_minus(series.values[best], error.values[best] if known and error is not None else None)
