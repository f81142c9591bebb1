"""A comparison in the terminal: the runs, then where the bits were won or lost."""

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nelbo.reports.comparison.bars import bar
from nelbo.reports.comparison.compare import Compared, Comparison
from nelbo.reports.comparison.differences import SMALLEST, Difference, figure
from nelbo.reports.comparison.named import shared_label
from nelbo.reports.terminal import plus_minus, short
from nelbo.runs.example_table import t_bins

BETTER, WORSE = "▼", "▲"
TERM_WIDTH, DIFFERENCE_WIDTH, HALF_BAR = 14, 21, 8
CHOICES_SHOWN = 6


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print everything that fits the console's width, in several tables where there are many runs."""
    console.print()
    for part in _parts(comparison, console.width):
        console.print(part)


def _parts(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    if comparison.incomparable:
        yield Text("These figures cannot be compared:", style="bold red")
        for reason in comparison.incomparable:
            yield Padding(Text(reason), (0, 0, 0, 2))
        yield ""
    yield _legend(comparison.runs)
    yield ""
    yield _figures(comparison)
    yield ""
    if comparison.incomparable:
        return
    for remark in comparison.remarks:
        yield Text(remark, style="dim")
    yield ""
    others = comparison.runs[1:]
    each = max(1, (width - TERM_WIDTH) // DIFFERENCE_WIDTH)
    for start in range(0, len(others), each):
        chunk = others[start : start + each]
        with_bars = len(chunk) * (DIFFERENCE_WIDTH + 2 * HALF_BAR + 3) <= width - TERM_WIDTH
        yield _differences(comparison.runs[0], chunk, with_bars)
        yield ""
    yield Text.assemble(
        (BETTER, "green"),
        (" better, ", "dim"),
        (WORSE, "red"),
        (f" worse than {comparison.runs[0].name} by more than two standard errors", "dim"),
    )


def _legend(runs: Sequence[Compared]) -> Table:
    """Who is who, and what each does otherwise."""
    legend = Table.grid(padding=(0, 2))
    legend.add_column(style="bold", no_wrap=True)
    legend.add_column(overflow="fold")
    legend.add_column(style="dim")
    for compared in runs:
        choices = [f"{name} {value}" for name, value in compared.choices.items()]
        if len(choices) > CHOICES_SHOWN:
            choices[CHOICES_SHOWN:] = [f"and {len(choices) - CHOICES_SHOWN} more"]
        legend.add_row(compared.name, Text(compared.folder), Text(", ".join(choices)))
    return legend


def _figures(comparison: Comparison) -> Table:
    """The bound of each run and its parts."""
    runs = comparison.runs
    unit = shared_label(runs)
    in_one_unit = all(compared.run.unit.label == unit for compared in runs)
    table = _table("variational bound" + (f", {unit}" if in_one_unit else ""))
    table.add_column("", no_wrap=True, style="bold")
    for name in ("total", "L_0", "L_t", "L_T", "evaluations"):
        table.add_column(name, justify="right", no_wrap=True)
    if not comparison.incomparable:
        table.add_column(f"from {runs[0].name}", justify="right", no_wrap=True)
    for compared in runs:
        run = compared.run
        total = figure(run, run.unit.metric)
        cells: list[str | Text] = [
            plus_minus(total.mean, total.stderr) + ("" if in_one_unit else f" {run.unit.label}"),
            *(short(figure(run, part).mean) for part in ("L_0", "L_t", "L_T")),
            f"{evaluations:,}" if (evaluations := run.ledger.get("num_evaluations")) else "?",
        ]
        if compared.differences is not None:
            cells.append(_cell(compared.differences.parts["total"]))
        table.add_row(compared.name, *cells)
    return table


def _differences(first: Compared, others: Sequence[Compared], with_bars: bool) -> Table:
    """Where the bits were won or lost: a column for each run."""
    found = [compared.differences.parts for compared in others if compared.differences is not None]
    in_decades = t_bins({name for parts in found for name in parts})
    pieces = ("L_0", *(in_decades or ("L_t",)), "L_T")  # which add up to the total
    known = (abs(parts[name].mean) for parts in found for name in pieces if name in parts)
    largest = max((size for size in known if math.isfinite(size)), default=0.0)
    table = _table(f"difference from {first.name}, {first.run.unit.label}")
    table.add_column("term", no_wrap=True)
    for compared in others:
        table.add_column(compared.name, justify="right", no_wrap=True)
        if with_bars:
            table.add_column("", no_wrap=True)
    for name in ("L_0", "L_t", *in_decades, "L_T", "total"):
        if name == "total":
            table.add_section()
        cells: list[Text] = []
        for parts in found:
            part = parts.get(name)
            cells.append(Text("–", style="dim") if part is None else _cell(part))
            if with_bars:
                drawn = bar(part.mean, largest, HALF_BAR) if part is not None and name in pieces else ""
                cells.append(Text(drawn, style="" if part is None else _style(part)))
        table.add_row(_term(name), *cells)
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def _term(name: str) -> Text:
    if name.startswith("t_"):
        _, low, high = name.split("_")
        return Text(f"  t {low}–{high}")
    return Text(name, style="bold" if name == "total" else "")


def _cell(part: Difference) -> Text:
    """The difference and its error, marked where it is clear; the mark is there without colour, too."""
    if max(abs(part.mean), part.stderr) < SMALLEST:
        shown = "0"
    elif abs(part.mean) < SMALLEST:
        shown = f"{short(0.0)} ± {short(part.stderr)}"
    else:
        shown = plus_minus(part.mean, part.stderr, sign=True)
    mark = (f"{BETTER} " if part.mean < 0 else f"{WORSE} ") if part.is_clear else ""
    return Text(mark + shown, style=_style(part))


def _style(part: Difference) -> str:
    if not part.is_clear:
        return "dim"
    return "green" if part.mean < 0 else "red"
