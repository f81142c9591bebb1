"""Which tables of L_t a chart draws, and as what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import SPLIT_COLOURS, SPLIT_NAMES
from nelbo.runs.bound_table import Terms
from nelbo.runs.run_folder import SPLITS, Run


@dataclass(frozen=True)
class Line:
    """The last table of a split of a run, and how it is shown; ``name`` is a label in plotly figures."""

    run: Run
    split: str
    terms: Terms
    name: str
    colour: str


def lines(entries: Sequence[Entry], shows: Callable[[Terms], bool] = lambda _: True) -> Iterator[Line]:
    """One line for each split of a single run; of several runs one each, of the best split.

    Args:
        entries: the runs of the page.
        shows: whether a table has what the chart is about.
    """
    for entry in entries:
        tables = {split: terms for split in SPLITS if (terms := entry.run.last_terms(split)) is not None}
        found = [split for split, terms in tables.items() if shows(terms)]
        if len(entries) > 1:
            for split in found[:1]:
                yield Line(entry.run, split, tables[split], entry.label, entry.colour)
        else:
            for split in reversed(found):
                yield Line(entry.run, split, tables[split], SPLIT_NAMES[split], SPLIT_COLOURS[split])
