"""Runs on the page with their names and colours, and the tables of L_t that charts draw."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from nelbo.evaluation.step_table import StepTable
from nelbo.reports.comparison.named_run import NamedRun, run_names
from nelbo.reports.comparison.seeds import group_by_seed
from nelbo.reports.html.style import RUN_COLOURS, SPLIT_COLOURS, SPLIT_NAMES, shaded
from nelbo.runs.run_folder import SPLITS, Run
from nelbo.text import plotly_text


@dataclass(frozen=True)
class Entry(NamedRun):
    """A run with its name and colour."""

    colour: str

    @property
    def label(self) -> str:
        """The name, escaped for plotly figures."""
        return plotly_text(self.name)


def make_entries(runs: Sequence[Run]) -> list[Entry]:
    """Name the runs and assign colours: shades of the group's colour in several groups of seeds."""
    named = [NamedRun(run, name) for run, name in zip(runs, run_names(runs), strict=True)]
    groups = group_by_seed(named)
    if len(groups) < 2:
        groups = []
    shades = {
        id(member.run): shaded(RUN_COLOURS[number % len(RUN_COLOURS)], place, len(group.runs))
        for number, group in enumerate(groups)
        for place, member in enumerate(group.runs)
    }
    others = islice(cycle(RUN_COLOURS), len(groups), None)
    return [Entry(one.run, one.name, shades.get(id(one.run)) or next(others)) for one in named]


def was_trained(entries: Sequence[Entry]) -> bool:
    """Whether any run is a training; evaluations have no curves, no samples and no speed."""
    return not all(entry.run.is_evaluation for entry in entries)


@dataclass(frozen=True)
class Line:
    """The last table of a split of a run, with name and colour; ``name`` is escaped for plotly figures."""

    run: Run
    split: str
    table: StepTable
    name: str
    colour: str


def lines(entries: Sequence[Entry], shows: Callable[[StepTable], bool] = lambda _: True) -> Iterator[Line]:
    """One line for each split of a single run; one line for each of several runs, of its best split.

    Args:
        entries: the runs of the page.
        shows: whether a table has the values of the chart.
    """
    for entry in entries:
        tables = {split: table for split in SPLITS if (table := entry.run.last_step_table(split)) is not None}
        found = [split for split, table in tables.items() if shows(table)]
        if len(entries) > 1:
            for split in found[:1]:
                yield Line(entry.run, split, tables[split], entry.label, entry.colour)
        else:
            for split in reversed(found):
                yield Line(entry.run, split, tables[split], SPLIT_NAMES[split], SPLIT_COLOURS[split])
