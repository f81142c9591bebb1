"""A figure and a table of runs for a paper: PDF, PNG or SVG by matplotlib, CSV or LaTeX."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nelbo.atomic_file import replacing
from nelbo.evaluation.seeds import SeedEstimate
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.named_run import NamedRun, chain_label, run_names, shared_label
from nelbo.reports.comparison.seed_curves import SeedCurve, step_curve, validation_curve
from nelbo.reports.comparison.seeds import SeedGroup, group_by_seed
from nelbo.reports.html.style import RUN_COLOURS
from nelbo.reports.numbers import plus_minus, short
from nelbo.runs.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES, TABLES = (".pdf", ".png", ".svg"), (".csv", ".tex")
WIDTH, HEIGHT = 6.75, 2.6  # inches, of a page of two columns
DPI = 300  # of a PNG
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def check_suffix(option: str, path: Path, known: Sequence[str]) -> None:
    """Check the format of a file by its name.

    Raises:
        ValueError: naming the option and the formats.
    """
    if path.suffix.lower() not in known:
        raise ValueError(f"{option} {path}: expected a name that ends in {', '.join(known)}")


def groups_of(runs: Sequence[Run]) -> list[SeedGroup]:
    """The runs grouped by everything but the seed; each run alone, if no two differ in the seed alone.

    Raises:
        ValueError: for runs without a bound.
    """
    named = [NamedRun(run, name) for run, name in zip(runs, run_names(runs), strict=True)]
    measured = [one for one in named if one.run.held_out is not None]
    if not measured:
        raise ValueError("no bound was measured in these runs")
    return group_by_seed(measured) or [
        SeedGroup(one.name, {}, (one,), (one.run.config.get("seed", 0),)) for one in measured
    ]


def write_figure(runs: Sequence[Run], path: Path) -> None:
    """The validation bound over training, and L_t against t: means over seeds, with bands of their spread.

    Args:
        runs: of the figure.
        path: of the file, which ends in one of FIGURES.

    Raises:
        ValueError: if matplotlib is missing, or the runs have neither curve.
        OSError: if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ValueError("--figure needs matplotlib: pip install 'nelbo[figure]'") from error
    groups = groups_of(runs)
    unit = shared_label([group.runs[0] for group in groups])
    curves = {
        ("step", f"validation bound, {unit}"): validation_curve,
        (chain_label([group.first for group in groups]), f"$L_t$, {unit}"): step_curve,
    }
    panels: dict[tuple[str, str], list[tuple[SeedGroup, SeedCurve]]] = {}
    for labels, curve_of in curves.items():
        for group in groups:
            if (curve := curve_of(group)) is not None:
                panels.setdefault(labels, []).append((group, curve))
    if not panels:
        raise ValueError("the figure needs val/ metrics in metrics.csv, or bound.parquet")
    drawn = Figure(figsize=(WIDTH / 2 * len(panels), HEIGHT), layout="constrained")
    axes: list[Axes] = list(drawn.subplots(1, len(panels), squeeze=False)[0])
    for axis, ((x, y), found) in zip(axes, panels.items(), strict=True):
        for group, curve in found:
            colour = RUN_COLOURS[groups.index(group) % len(RUN_COLOURS)]
            _add_curve(axis, curve, group.name, colour)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.spines[["top", "right"]].set_visible(False)
        if x != "step":
            axis.set_xscale("log")
            axis.set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        drawn.savefig(file, format=path.suffix[1:].lower(), dpi=DPI)


def _add_curve(axis: "Axes", curve: SeedCurve, name: str, colour: str) -> None:
    label = name.replace("$", r"\$")  # not a formula
    axis.plot(curve.x, curve.mean, color=colour, linewidth=1.4, label=label)
    axis.fill_between(
        curve.x, curve.mean - curve.spread, curve.mean + curve.spread, color=colour, alpha=0.2, linewidth=0
    )


def write_table(runs: Sequence[Run], path: Path) -> None:
    """A row for each group of runs that differ in their seed alone, as CSV or LaTeX.

    Columns: the runs, the number of seeds, and mean, standard error, its part over the seeds, spread and
    error within a run of the bound and its parts. LaTeX has a column for each of them, where ``±`` is the
    standard error.

    Args:
        runs: of the table.
        path: of the file, which ends in one of TABLES.

    Raises:
        ValueError: for runs without a bound.
        OSError: if the file cannot be written.
    """
    groups = groups_of(runs)
    with replacing(path) as unfinished:
        if path.suffix.lower() == ".csv":
            _write_csv(groups, unfinished)
        else:
            unfinished.write_text(latex_table(groups), encoding="utf-8")


def _write_csv(groups: Sequence[SeedGroup], path: Path) -> None:
    names = ("mean", "stderr", "stderr_over_seeds", "spread", "error_within_run")
    columns = [f"{part}_{name}" for part in ("total", *PARTS) for name in names]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["runs", "seeds", "unit", *columns])
        for group in groups:
            cells = [
                value if math.isfinite(value) else ""
                for part in _parts(group)
                for value in (part.mean, part.stderr, part.seed_stderr, part.spread, part.within)
            ]
            seeds = " ".join(map(str, group.seeds))
            writer.writerow([group.name, seeds, group.first.unit.label, *cells])


def latex_table(groups: Sequence[SeedGroup]) -> str:
    """The table as a LaTeX ``tabular``."""
    unit = shared_label([group.runs[0] for group in groups])
    rows = [
        [group.name.translate(LATEX), str(len(group.seeds)), *map(_latex, _parts(group))] for group in groups
    ]
    lines = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            f"% {unit}: mean over seeds and its standard error over seeds and test examples",
            r"\begin{tabular}{lrrrrr}",
            r"\hline",
            r"runs & seeds & total & $L_0$ & $L_t$ & $L_T$ \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _parts(group: SeedGroup) -> list[SeedEstimate]:
    return [group.total, *(group.part(name) for name in PARTS)]


def _latex(estimate: SeedEstimate) -> str:
    tiny = abs(estimate.mean) < 1e-3  # L_T of a good chain
    text = short(estimate.mean, 2) if tiny else plus_minus(estimate.mean, estimate.stderr)
    mantissa, times, power = text.partition(" × 10")
    if times:
        exponent = power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
        return rf"${mantissa} \times 10^{{{exponent}}}$"
    return f"${text.replace('±', chr(92) + 'pm')}$"
