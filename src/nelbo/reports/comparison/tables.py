"""Terminal tables of a comparison: the runs, then the differences along the chain."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.seeds import SeedEstimate
from nelbo.evaluation.t_bins import bin_range
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.choices import first_choices
from nelbo.reports.comparison.compare import ComparedRun, Comparison
from nelbo.reports.comparison.difference import is_significant
from nelbo.reports.comparison.named_run import shared_label
from nelbo.reports.comparison.seeds import SeedGroup
from nelbo.reports.numbers import VISIBLE, cell, plus_minus, short
from nelbo.reports.terminal import make_table, natural_width
from nelbo.runs.example_table import t_bin_columns

BETTER, WORSE = "▼", "▲"
TERM_WIDTH, HALF_BAR = 14, 8
CHOICES_SHOWN = 6
LONGEST_WORD = 24  # of the name of a group that is not broken
HASH = re.compile(r"\b[0-9a-f]{16,}\b")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison, in several tables where the runs do not fit the console's width."""
    console.print()
    for part in _parts(comparison, console):
        console.print(part)


def _parts(comparison: Comparison, console: Console) -> Iterator[RenderableType]:
    if comparison.incomparable:
        some = any(compared.differences is not None for compared in comparison.runs)
        yield Text(f"These bounds cannot {'all ' if some else ''}be compared:", style="bold red")
        for reason in comparison.incomparable:
            yield Padding(Text(_shorten_hashes(reason)), (0, 0, 0, 2))
        yield ""
    yield _legend(comparison.runs)
    yield ""
    bounds = _bounds(comparison, with_difference=True)
    if natural_width(console, bounds) > console.width:
        bounds = _bounds(comparison, with_difference=False)  # the last row of the next table has it, too
    yield bounds
    yield ""
    if any(compared.run.likelihoods for compared in comparison.runs):
        yield _likelihoods(comparison.runs)
        yield ""
    if comparison.groups:
        yield from seed_tables(comparison.groups)
    others = [compared for compared in comparison.runs if compared.differences is not None]
    if not others:
        return
    for remark in comparison.remarks:
        yield Text(remark, style="dim")
    yield ""
    found = [part for c in others if c.differences is not None for part in c.differences.parts.values()]
    room, column = console.width - TERM_WIDTH, 1 + max((len(_cell(part)) for part in found), default=0)
    each = max(1, room // column)
    for start in range(0, len(others), each):
        chunk = others[start : start + each]
        with_bars = len(chunk) * (column + 2 * HALF_BAR + 2) <= room
        yield _differences(comparison.runs[0], chunk, with_bars)
        yield ""
    yield Text.assemble(
        (BETTER, "green"),
        (" better, ", "dim"),
        (WORSE, "red"),
        (f" worse than {comparison.runs[0].name} by more than two standard errors", "dim"),
    )


def _legend(runs: Sequence[ComparedRun]) -> Table:
    """The name, the folder and the choices of each run."""
    legend = Table.grid(padding=(0, 2))
    legend.add_column(style="bold", no_wrap=True)
    legend.add_column(overflow="fold")
    legend.add_column(style="dim")
    for compared in runs:
        shown, more = first_choices(compared.choices, CHOICES_SHOWN)
        choices = [f"{name} {_shorten_hashes(value)}" for name, value in shown.items()]
        if more:
            choices.append(f"and {more} more")
        legend.add_row(compared.name, Text(compared.folder), Text(", ".join(choices)))
    return legend


def _bounds(comparison: Comparison, with_difference: bool) -> Table:
    """The bound of each run and its parts."""
    runs = comparison.runs
    unit = shared_label(runs)
    in_one_unit = all(compared.run.unit.label == unit for compared in runs)
    table = make_table("variational bound" + (f", {unit}" if in_one_unit else ""), framed=False)
    table.add_column("", no_wrap=True, style="bold")
    for name in ("total", *PARTS, "evaluations"):
        table.add_column(name, justify="right", no_wrap=True)
    with_difference &= any(compared.differences is not None for compared in runs)
    if with_difference:
        table.add_column(f"from {runs[0].name}", justify="right", no_wrap=True)
    ranked = sorted(runs, key=lambda compared: compared.run.part(compared.run.unit.metric).mean)
    for compared in runs if comparison.incomparable else ranked:
        run = compared.run
        total = run.part(run.unit.metric)
        cells: list[str | Text] = [
            plus_minus(total.mean, total.stderr) + ("" if in_one_unit else f" {run.unit.label}"),
            *(short(run.part(part).mean) for part in PARTS),
            f"{evaluations:,}" if (evaluations := run.ledger.get("num_evaluations")) else "–",
        ]
        if with_difference and compared.differences is not None:
            cells.append(_cell(compared.differences.parts["total"]))
        table.add_row(compared.name, *cells)
    return table


def _likelihoods(runs: Sequence[ComparedRun]) -> Table:
    """The likelihoods besides the bound, with their differences from those of the first run."""
    table = make_table(f"-log p besides the bound, {shared_label(runs)}", framed=False)
    table.add_column("", no_wrap=True, style="bold")
    for name in ("value", f"from {runs[0].name}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("measured differently", style="dim", overflow="fold")
    for name in dict.fromkeys(name for compared in runs for name in compared.run.likelihoods):
        table.add_section()
        for compared in runs:
            if (found := compared.run.likelihoods.get(name)) is None:
                continue
            difference = compared.differences and compared.differences.likelihoods.get(name)
            table.add_row(
                f"{name} {compared.name}",
                plus_minus(found.total.mean, found.total.stderr),
                _cell(difference.estimate) if difference else Text("–", style="dim"),
                Text(_ledger_change(difference.ledger) if difference else ""),
            )
    return table


def _ledger_change(ledger: Mapping[str, tuple[Any, Any]]) -> str:
    """``solver: RK4, 4 steps → RK4, 8 steps``, for each entry that differs."""
    return "; ".join(
        _shorten_hashes(f"{name.replace('_', ' ')}: {cell(first)} → {cell(other)}")
        for name, (first, other) in ledger.items()
    )


def seed_tables(groups: Sequence[SeedGroup]) -> Iterator[RenderableType]:
    """The groups of runs that differ in their seed alone, their differences from the first, and a note."""
    unit = shared_label([group.runs[0] for group in groups])
    found = [None if group is groups[0] else group.differences_from(groups[0]) for group in groups]
    yield _seed_table(
        f"over seeds, {unit}",
        [
            (group, group.total, None if parts is None else parts["total"])
            for group, parts in zip(groups, found, strict=True)
        ],
    )
    for name in dict.fromkeys(name for group in groups for name in group.likelihoods):
        yield _seed_table(
            f"{name} over seeds, {unit}",
            [
                (
                    group,
                    group.likelihoods[name],
                    None if group is groups[0] else group.likelihood_differences_from(groups[0]).get(name),
                )
                for group in groups
                if name in group.likelihoods
            ],
        )
    yield Text(
        "Mean over the seeds. spread: standard deviation of the runs. within: standard error within a run, "
        "of the measurement, which the test examples have in common. The error of the mean has both parts. "
        "difference: from the first group, seed by seed where the seeds are the same.",
        style="dim",
    )
    yield ""


def _seed_table(title: str, rows: Sequence[tuple[SeedGroup, SeedEstimate, SeedEstimate | None]]) -> Table:
    """A value of each group, and its difference from the first."""
    table = make_table(title, framed=False)
    longest = max(len(word) for group, _, _ in rows for word in group.name.split())
    table.add_column("runs", overflow="fold", min_width=min(longest, LONGEST_WORD))
    table.add_column("seeds")
    for name in ("mean", "spread", "within", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for group, value, difference in rows:
        cells = [plus_minus(value.mean, value.stderr), short(value.spread, 2), short(value.within, 2)]
        shown = Text("–", style="dim")
        if difference is not None:
            shown = _cell(Estimate(difference.mean, difference.stderr))
        seeds = ", ".join(map(str, group.seeds))
        table.add_row(Text(group.name), seeds, *cells, shown)
    return table


def _differences(first: ComparedRun, others: Sequence[ComparedRun], with_bars: bool) -> Table:
    """The differences of each part, a column for each run."""
    found = [compared.differences.parts for compared in others if compared.differences is not None]
    bins = t_bin_columns({name for parts in found for name in parts})
    pieces = ("L_0", *(bins or ("L_t",)), "L_T")  # they add up to the total
    known = (abs(parts[name].mean) for parts in found for name in pieces if name in parts)
    largest = max((size for size in known if math.isfinite(size)), default=0.0)
    table = make_table(f"difference from {first.name}, {first.run.unit.label}", framed=False)
    table.add_column("term", no_wrap=True)
    for compared in others:
        table.add_column(compared.name, justify="right", no_wrap=True)
        if with_bars:
            table.add_column("", no_wrap=True)
    for name in ("L_0", "L_t", *bins, "L_T", "total"):
        if name == "total":
            table.add_section()
        cells: list[Text] = []
        for parts in found:
            part = parts.get(name)
            cells.append(Text("–", style="dim") if part is None else _cell(part))
            if with_bars:
                drawn = (
                    difference_bar(part.mean, largest, HALF_BAR)
                    if part is not None and name in pieces
                    else ""
                )
                cells.append(Text(drawn, style="" if part is None else _style(part)))
        table.add_row(_term(name), *cells)
    return table


def _shorten_hashes(text: str) -> str:
    return HASH.sub(lambda found: found[0][:12], text)


def _term(name: str) -> Text:
    if (found := bin_range(name)) is not None:
        t, low, high = found
        return Text(f"  {t} {low}–{high}")
    return Text(name, style="bold" if name == "total" else "")


def _cell(part: Estimate) -> Text:
    """The difference and its error, with a mark where it is significant, for terminals without colour."""
    shown = (
        "0" if max(abs(part.mean), part.stderr) < VISIBLE else plus_minus(part.mean, part.stderr, sign=True)
    )
    mark = (f"{BETTER} " if part.mean < 0 else f"{WORSE} ") if is_significant(part) else ""
    return Text(mark + shown, style=_style(part))


def _style(part: Estimate) -> str:
    if not is_significant(part):
        return "dim"
    return "green" if part.mean < 0 else "red"


def difference_bar(value: float, largest: float, half: int) -> str:
    """A bar from the middle to the left for negative values, to the right for positive ones.

    Args:
        value: length and side; no bar for NaN.
        largest: value that fills one side.
        half: characters on each side of the middle.
    """
    known = math.isfinite(value) and 0.0 < largest < math.inf
    whole, odd = divmod(round(2 * half * min(abs(value) / largest, 1.0)) if known else 0, 2)
    if value < 0:
        return f"{'▐' * odd + '█' * whole:>{half}}│{'':{half}}"
    return f"{'':{half}}│{'█' * whole + '▌' * odd:<{half}}"
