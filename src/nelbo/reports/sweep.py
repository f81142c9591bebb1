"""The table at the end of a sweep, in the terminal and in ``sweep.csv``, and the report of its runs."""

import csv
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nelbo.atomic_file import replacing
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.named_run import NamedRun, incomparable, shared_label
from nelbo.reports.comparison.seeds import group_by_seed
from nelbo.reports.comparison.tables import seed_tables
from nelbo.reports.html import write_report
from nelbo.reports.numbers import duration, plus_minus
from nelbo.reports.terminal import make_console, make_table, natural_width, print_fact
from nelbo.runs.files import RunFolderError
from nelbo.runs.job_status import JobStatus
from nelbo.runs.paths import REPORT, SWEEP_TABLE
from nelbo.runs.run_folder import Run, read_run
from nelbo.text import printable

FRECHET = re.compile(r"val/(fid|fd_\w+)")
FILE_WIDTH = 160  # columns without a terminal and without COLUMNS


class JobState(StrEnum):
    """The state of a job of a sweep."""

    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep.

    Attributes:
        name: of its folder in that of the sweep.
        folder: of the run.
        choices: options that the sweep sets.
        is_begun: whether the job was started.
        job_status: how the job ended; None until it ends.
    """

    name: str
    folder: Path
    choices: Mapping[str, str]
    is_begun: bool
    job_status: JobStatus | None

    @cached_property
    def run(self) -> Run | None:
        """Its files; None if they are not those of a run, or cannot be read."""
        try:
            return read_run(self.folder)
        except RunFolderError:
            return None

    @property
    def state(self) -> JobState:
        """Whether the job was started, and how it ended."""
        if self.job_status is None:
            return JobState.INTERRUPTED if self.is_begun else JobState.NOT_BEGUN
        return JobState.FINISHED if self.job_status.failure is None else JobState.FAILED

    @property
    def status(self) -> str:
        """The state, and the error of a failed job."""
        failure = None if self.job_status is None else self.job_status.failure
        return str(self.state) if failure is None else f"{self.state}: {failure}"

    @property
    def time(self) -> float | None:
        """Seconds of training, or of the job."""
        trained = None if self.run is None else self.run.summary.get("train_seconds")
        if trained is not None:
            return trained
        return None if self.job_status is None else self.job_status.seconds

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Values by metric name; ``best_val`` is the lowest validation bound."""
        run = self.run
        if run is None:
            return {}
        metric = run.unit.metric
        found: dict[str, float | None] = {}
        if (best := run.best_validation()) is not None:
            found[f"best_val/{metric}"], found[f"best_val/{metric}_stderr"] = best
        for split in ("val", "test"):
            for name in (metric, *PARTS):
                found |= {
                    f"{split}/{name}{end}": run.final(f"{split}/{name}{end}") for end in ("", "_stderr")
                }
        found |= {name: run.final(name) for name in run.metrics if FRECHET.fullmatch(name)}
        return {name: value for name, value in found.items() if value is not None}

    def bound(self, split: str) -> str:
        """The bound of a split with its error."""
        name = f"{split}/{'bpd' if self.run is None else self.run.unit.metric}"
        return plus_minus(self.metrics.get(name), self.metrics.get(f"{name}_stderr"))

    def part(self, name: str) -> str:
        """A part of the bound of the best split."""
        split = None if self.run is None else self.run.held_out
        return plus_minus(self.metrics.get(f"{split}/{name}"), None)


def show_sweep(folder: Path, runs: Sequence[SweptRun], resume_command: str | None) -> None:
    """Print the table, write it to ``sweep.csv``, and write the report of all runs.

    Args:
        folder: of the sweep.
        runs: of the sweep, including those that were not started.
        resume_command: command that runs the remaining jobs; None if none remain.
    """
    ordered = sorted(runs, key=_place)
    readable = [named for _, named in named_runs(ordered)]
    console = make_console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = make_console(FILE_WIDTH)
    console.print()
    console.print(sweep_table(ordered, console))
    groups = group_by_seed(
        [named for swept, named in named_runs(ordered) if swept.state is JobState.FINISHED]
    )
    for part in seed_tables(groups) if groups else ():
        console.print(part)
    for swept in ordered:
        if swept.state is JobState.FAILED:
            console.print(Text(printable(f"job {swept.name} {swept.status}")), soft_wrap=True)
    measured = [named for named in readable if named.run.ledger]
    for reason in incomparable(measured) if len(measured) > 1 else []:
        console.print(Text(f"not comparable: {reason}", style="bold red"), soft_wrap=True)
    try:
        _write_table(ordered, folder / SWEEP_TABLE)
        if readable:
            write_report([named.run.path for named in readable], folder / REPORT)
    except (RunFolderError, OSError) as error:  # the runs are complete
        warnings.warn(f"the table or the report was not written: {error}", stacklevel=2)
    lines = {"table": folder / SWEEP_TABLE, "report": folder / REPORT}
    for label, path in lines.items():
        if path.exists():
            print_fact(console, label, path)
    if resume_command is not None:
        print_fact(console, "resume", resume_command)


def named_runs(runs: Sequence[SweptRun]) -> list[tuple[SweptRun, NamedRun]]:
    """The runs whose files can be read, with the name of their job."""
    return [(swept, NamedRun(swept.run, printable(swept.name))) for swept in runs if swept.run is not None]


def sweep_table(runs: Sequence[SweptRun], console: Console) -> Table:
    """A row for each run; a column only if some run has a value.

    The parts of the bound and the time are left out if the console is too narrow; ``sweep.csv`` has them.
    """
    optional = [*reversed(PARTS), "time"]
    table = _table(runs, ())
    for number in range(1, len(optional) + 1):
        if natural_width(console, table) <= console.width:
            break
        table = _table(runs, optional[:number])
    return table


def _table(runs: Sequence[SweptRun], left_out: Sequence[str]) -> Table:
    known = [named for _, named in named_runs(runs) if named.run.held_out in ("val", "test")]
    table = make_table(f"sweep, {shared_label(known)}" if known else "sweep", framed=False)
    columns = {"job": [swept.name for swept in runs]}
    for option in dict.fromkeys(option for swept in runs for option in swept.choices):
        columns[option] = [_short(swept.choices.get(option, "–")) for swept in runs]
    columns["best val"] = [swept.bound("best_val") for swept in runs]
    for split in ("val", "test"):
        columns[split] = [swept.bound(split) for swept in runs]
    for part in PARTS:
        columns[part] = [swept.part(part) for swept in runs]
    for name in sorted({name for swept in runs for name in swept.metrics if FRECHET.fullmatch(name)}):
        columns[name.removeprefix("val/")] = [plus_minus(swept.metrics.get(name), None) for swept in runs]
    columns["time"] = [duration(swept.time) for swept in runs]
    columns["status"] = [str(swept.state) for swept in runs]
    if any(cell != "–" for cell in columns["best val"]):
        del columns["val"]  # the last validation of the same column
    columns = {
        name: cells
        for name, cells in columns.items()
        if name not in left_out and any(cell != "–" for cell in cells)
    }
    for name in columns:
        numeric = name not in ("job", "status") and not any(name in swept.choices for swept in runs)
        table.add_column(Text(printable(name)), justify="right" if numeric else "left", no_wrap=numeric)
    for swept, cells in zip(runs, zip(*columns.values(), strict=True), strict=True):
        style = "" if swept.state is JobState.FINISHED else "dim"
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    return table


def _short(choice: str) -> str:
    """A choice as given; four significant digits of a randomly drawn number."""
    return f"{float(choice):.4g}" if re.fullmatch(r"\d+\.\d{5,}(e-?\d+)?", choice) else choice


def _place(swept: SweptRun) -> tuple[bool, float]:
    """Sort key: the lowest bound of the best split first, unfinished runs last."""
    run = swept.run
    bound = None if run is None or run.held_out is None else run.final(f"{run.held_out}/{run.unit.metric}")
    return swept.state is not JobState.FINISHED, float("inf") if bound is None else bound


def _write_table(runs: Sequence[SweptRun], path: Path) -> None:
    rows = [
        {
            "job": swept.name,
            **swept.choices,
            "status": swept.status,
            **swept.metrics,
            "seconds": swept.time,
            "folder": str(swept.folder),
        }
        for swept in runs
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (
        replacing(path) as unfinished,
        # the name of a folder may not be UTF-8
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
