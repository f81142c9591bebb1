"""A run on the page: its name, its colour, and what is asked of it again and again."""

from collections.abc import Sequence
from dataclasses import dataclass

from nelbo.reports.comparison.named import NamedRun, folder_names
from nelbo.reports.html.style import RUN_COLOURS
from nelbo.runs.run_folder import Run
from nelbo.text import plotly_text


@dataclass(frozen=True)
class Entry(NamedRun):
    """A run, and how it is shown."""

    colour: str

    @property
    def label(self) -> str:
        """The name as a label in plotly figures."""
        return plotly_text(self.name)


def make_entries(runs: Sequence[Run]) -> list[Entry]:
    """Give each run its name and its colour."""
    return [
        Entry(run, name, RUN_COLOURS[i % len(RUN_COLOURS)])
        for i, (run, name) in enumerate(zip(runs, folder_names(runs), strict=True))
    ]


def was_trained(entries: Sequence[Entry]) -> bool:
    """Whether there is a training among them; evaluations have no curves, no samples and no speed."""
    return not all(entry.run.is_evaluation for entry in entries)
