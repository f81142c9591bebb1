"""Terminal output: the table of the bound at the end of a run, and lines with a label."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nelbo.evaluation.units import PARTS, Unit
from nelbo.reports.numbers import plus_minus
from nelbo.runs.paths import LAST, REPORT, SAMPLES
from nelbo.text import printable

LABEL_WIDTH = 12
SMALL = 1e-3  # in scientific notation below


def print_bound(metrics: Mapping[str, float], splits: tuple[str, ...], unit: Unit, run_dir: Path) -> None:
    """Print L_0, L_t, L_T and their sum for each split, and the paths of the run's files.

    Args:
        metrics: with the names of :meth:`Unit.metrics`.
        splits: one column each.
        unit: of the metrics.
        run_dir: folder of the run.
    """
    console = make_console()
    console.print()
    print_whole(console, make_bound_table(metrics, splits, unit))
    for what, where in _files(run_dir):
        print_fact(console, what, where)


def make_console(width: int | None = None, file: IO[str] | None = None) -> Console:
    """A console that prints text unchanged: no markup in brackets, no emoji for ``:name:``."""
    return Console(width=width, file=file, markup=False, emoji=False, highlight=False)


def print_fact(console: Console, label: str, text: object) -> None:
    """Print a path or a command after its label, on one line so that it can be copied."""
    console.print(Text.assemble((f"{label:<{LABEL_WIDTH}}", "dim"), printable(text)), soft_wrap=True)


def print_note(console: Console, label: str, text: str) -> None:
    """Print a sentence after its label, wrapped at the width of the console."""
    table = Table.grid()
    table.add_column(style="dim", width=LABEL_WIDTH)
    table.add_column()
    table.add_row(label, Text(printable(text)))
    console.print(table)


def print_left_out(problems: Sequence[Exception]) -> None:
    """Print one line on stderr about folders that cannot be read, with what is wrong with the first one."""
    if problems:
        count = "" if len(problems) == 1 else f"{len(problems)} folders that cannot be read, such as "
        print(f"left out: {count}{printable(problems[0])}", file=sys.stderr)


def make_table(title: str, framed: bool = True) -> Table:
    """A table with a bold title on the left; without a frame only its header is underlined."""
    table = Table(title=title, title_justify="left", title_style="bold")
    if not framed:
        table.box, table.show_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    return table


def natural_width(console: Console, table: Table) -> int:
    """The width of the table in columns where nothing limits it."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its own width if the terminal is narrower: a truncated number would mislead."""
    width = natural_width(console, table)
    if width > console.width:
        console = make_console(width, console.file)
    console.print(table)


def make_bound_table(metrics: Mapping[str, float], splits: tuple[str, ...], unit: Unit) -> Table:
    """L_0, L_t, L_T and their sum, with a column for each measured split."""
    table = make_table(f"variational bound, {unit.label}")
    table.add_column("term", no_wrap=True)
    splits = tuple(split for split in splits if f"{split}/{unit.metric}" in metrics)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
        if unit.is_discrete:
            table.add_column("share", justify="right", style="dim", no_wrap=True)
    for key, meaning in PARTS.items():
        name = Text.assemble(f"{key}  ", (meaning, "dim"))
        table.add_row(name, *_cells(metrics, splits, key, unit))
    table.add_section()
    table.add_row(Text("total", style="bold"), *_cells(metrics, splits, unit.metric, unit))
    return table


def _cells(metrics: Mapping[str, float], splits: tuple[str, ...], key: str, unit: Unit) -> list[Text]:
    cells: list[Text] = []
    for split in splits:
        value, error = metrics[f"{split}/{key}"], metrics[f"{split}/{key}_stderr"]
        is_small = key != unit.metric and abs(value) < SMALL  # its error would not fit 80 columns
        cells.append(Text(plus_minus(value, None if is_small else error)))
        if unit.is_discrete:
            share = value / metrics[f"{split}/{unit.metric}"]
            cells.append(Text("100%" if key == unit.metric else f"{share:.1%}"))
    return cells


def _files(run_dir: Path) -> list[tuple[str, str]]:
    files = [("run", str(run_dir))]
    checkpoint = run_dir / LAST
    if checkpoint.exists():
        files.append(("weights", str(checkpoint)))
    samples = sorted((run_dir / SAMPLES).glob("*.png"))
    if samples:
        files.append(("samples", str(samples[-1])))
    report = run_dir / REPORT
    if report.exists():
        files.append(("report", str(report)))
    wandb_runs = sorted((run_dir / "wandb").glob("*run-*"))
    if wandb_runs:
        files.append(("wandb", f"wandb leet {shlex.quote(str(wandb_runs[-1]))}"))
    return files
