"""The table at the end of a run."""

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nelbo.evaluation.units import Unit
from nelbo.runs.paths import LAST, REPORT, SAMPLES
from nelbo.text import printable

PARTS = (
    ("L_0", "reconstruction"),
    ("L_t", "denoising"),
    ("L_T", "prior"),
)


def print_bound(metrics: Mapping[str, float], splits: tuple[str, ...], unit: Unit, run_dir: Path) -> None:
    """L_0, L_t, L_T and their sum for each split, and where the files of a run are.

    Args:
        metrics: flat, as :meth:`Unit.metrics` names them.
        splits: the columns.
        unit: of the metrics.
        run_dir: the run's folder.
    """
    console = make_console()
    console.print()
    print_whole(console, bound_table(metrics, splits, unit))
    for what, where in _files(run_dir):
        print_fact(console, what, where)


def make_console(width: int | None = None) -> Console:
    """A console that prints text unchanged: brackets are no markup, and ``:name:`` is no emoji."""
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_fact(console: Console, what: str, text: object) -> None:
    """A line with a label and a text, which may contain names from outside."""
    console.print(Text.assemble((f"{what:<11}", "dim"), printable(text)), soft_wrap=True)


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its own width where the terminal is narrower: half a figure is another figure."""
    width = console.measure(table, options=console.options.update(max_width=10_000, width=10_000)).maximum
    if width > console.width:
        console = Console(width=width, file=console.file, markup=False, emoji=False)
    console.print(table)


def bound_table(metrics: Mapping[str, float], splits: tuple[str, ...], unit: Unit) -> Table:
    """L_0, L_t, L_T and their sum, a column for each split that was measured."""
    table = Table(title=f"variational bound, {unit.label}", title_justify="left", title_style="bold")
    table.add_column("term", no_wrap=True)
    splits = tuple(split for split in splits if f"{split}/{unit.metric}" in metrics)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
        if unit.is_code_length:
            table.add_column("share", justify="right", style="dim", no_wrap=True)
    for key, meaning in PARTS:
        name = Text.assemble(f"{key}  ", (meaning, "dim"))
        table.add_row(name, *_cells(metrics, splits, key, unit))
    table.add_section()
    table.add_row(Text("total", style="bold"), *_cells(metrics, splits, unit.metric, unit))
    return table


def short(value: float, like: float = 0.0) -> str:
    """Four decimals; fewer for figures in the hundreds, powers of ten for tiny ones, ``?`` for unknown ones.

    Args:
        value: to be written.
        like: with as many decimals as this value would have.
    """
    if math.isnan(value):
        return "?"
    largest = max(abs(value), abs(like))
    if 0.0 < largest < 5e-5:
        return f"{value:.1e}"
    return f"{value:.4f}" if largest < 100 else f"{value:.1f}"


def plus_minus(value: float, error: float, sign: bool = False) -> str:
    """A value and its standard error; with a + before it where it is a difference."""
    return f"{'+' if sign and value >= 0 else ''}{short(value)} ± {short(error, like=value)}"


def _cells(metrics: Mapping[str, float], splits: tuple[str, ...], key: str, unit: Unit) -> list[Text]:
    cells: list[Text] = []
    for split in splits:
        value, error = metrics[f"{split}/{key}"], metrics[f"{split}/{key}_stderr"]
        cells.append(Text(plus_minus(value, error)))
        if unit.is_code_length:
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
        files.append(("wandb", f"wandb leet {wandb_runs[-1]}"))
    return files
