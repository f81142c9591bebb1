"""A run on the page: its name, its colour, and what is asked of it again and again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nelbo.dashboard.report.style import RUN_COLOURS
from nelbo.dashboard.run_folder import Run, Terms


@dataclass(frozen=True)
class Entry:
    """A run, and how it is shown."""

    run: Run
    name: str
    colour: str

    @property
    def held_out(self) -> str | None:
        """The best split there is to judge the run by: ``test``, else ``val``, else ``train``."""
        total = self.run.unit.metric
        splits = ("test", "val", "train")
        return next((s for s in splits if self.run.final(f"{s}/{total}") is not None), None)

    def terms(self) -> Terms | None:
        """The last table of that split, or of the next best that has one."""
        tables = (self.run.last_terms(split) for split in ("test", "val", "train"))
        return next((table for table in tables if table is not None), None)

    def prior(self, split: str) -> float:
        """L_T in nats; 0 where it is not known."""
        return (self.run.final(f"{split}/L_T") or 0.0) / self.run.unit.per_nat


def make_entries(runs: Sequence[Run]) -> list[Entry]:
    """Name the runs by what tells their folders apart."""
    paths = [run.path.resolve() for run in runs]
    if len(paths) == 1:
        names = ["/".join(paths[0].parts[-2:])]
    else:
        shared = Path(os.path.commonpath([path.parent for path in paths]))
        names = [str(path.relative_to(shared)) for path in paths]
    return [
        Entry(run, name, RUN_COLOURS[i % len(RUN_COLOURS)])
        for i, (run, name) in enumerate(zip(runs, names, strict=True))
    ]


def shared_label(entries: Sequence[Entry]) -> str:
    """The unit of all runs, or both where they differ."""
    return " or ".join(sorted({entry.run.unit.label for entry in entries}))
