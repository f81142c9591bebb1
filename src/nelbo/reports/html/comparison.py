"""The table of the runs on the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from nelbo.reports.comparison.choices import differing
from nelbo.reports.comparison.compare import from_first
from nelbo.reports.comparison.differences import Difference
from nelbo.reports.html.entry import Entry
from nelbo.reports.numbers import duration, plus_minus

MOST_CHOICES = 8  # named in the table of runs


@dataclass(frozen=True)
class Row:
    """A run in the table of runs."""

    entry: Entry
    split: str
    figures: tuple[str, ...]
    prior: str
    difference: str
    is_clear: bool
    best: str
    choices: dict[str, str]
    more: int
    time: str


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Every run with its bound, parts, best validation, and the choices that set it apart."""
    differences = [found and found.parts["total"] for found in from_first(entries)[0]]
    choices_of = differing([entry.run for entry in entries])
    return [
        Row(
            entry=entry,
            split=entry.run.held_out or "–",
            figures=tuple(
                plus_minus(
                    entry.run.final(f"{entry.run.held_out}/{name}"),
                    entry.run.final(f"{entry.run.held_out}/{name}_stderr"),
                )
                for name in (entry.run.unit.metric, "L_0", "L_t")
            ),
            prior=plus_minus(entry.run.final(f"{entry.run.held_out}/L_T"), None),
            difference=_signed(difference),
            is_clear=difference is not None and difference.is_clear,
            best=plus_minus(*(entry.run.best_validation() or (None, None))),
            choices=dict(list(choices.items())[:MOST_CHOICES]),
            more=max(len(choices) - MOST_CHOICES, 0),
            time=duration(entry.run.summary.get("train_seconds")),
        )
        for entry, choices, difference in zip(entries, choices_of, differences, strict=True)
    ]


def _signed(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    return ("+" if difference.mean > 0 else "") + plus_minus(difference.mean, difference.stderr)
