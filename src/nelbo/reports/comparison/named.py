"""A run with the name that it goes by beside others."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nelbo.runs.run_folder import Run
from nelbo.text import printable


@dataclass(frozen=True)
class NamedRun:
    """A run, and what it is called."""

    run: Run
    name: str


def folder_names(runs: Sequence[Run]) -> list[str]:
    """What tells the folders of the runs apart, printable."""
    paths = [run.path.resolve() for run in runs]
    if len(paths) == 1:
        return [printable("/".join(paths[0].parts[-2:]))]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [printable(path.relative_to(shared)) for path in paths]


def shared_label(runs: Sequence[NamedRun]) -> str:
    """The unit of all runs, or both where they differ."""
    return " or ".join(sorted({named.run.unit.label for named in runs}))
