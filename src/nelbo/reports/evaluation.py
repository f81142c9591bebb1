"""The tables that ``evaluate.py`` prints."""

from pathlib import Path

from rich.table import Table

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.units import Unit
from nelbo.reports import terminal
from nelbo.reports.comparison.choices import steps_in_words
from nelbo.runs.evaluation_file import Evaluation, bounds_by_variance, class_rows
from nelbo.runs.paths import REPORT
from nelbo.text import printable


def print_evaluation(evaluation: Evaluation, run_dir: Path, by_class: bool = False) -> None:
    """The bound term by term, where its error comes from, with other variances, and by class if asked for."""
    console, unit, estimate = terminal.make_console(), evaluation.unit, evaluation.measurements[0].estimate
    ledger = evaluation.ledgers[0]
    console.print()
    terminal.print_whole(console, terminal.bound_table(evaluation.metrics, (evaluation.split,), unit))
    in_full = estimate.num_examples * evaluation.chain.num_steps
    lines = _error_lines(estimate.total, unit) | {
        "measured": f"{estimate.num_examples:,} examples of {ledger.data} {ledger.split}, "
        f"t = {steps_in_words(ledger.to_dict())}, {ledger.variance}, {ledger.weights} weights, "
        + ("x0_hat clipped" if ledger.clip else "x0_hat not clipped"),
        "cost": f"{estimate.num_evaluations:,} network evaluations; every t of every example once: "
        f"{in_full:,}",
    }
    if evaluation.shortfall is not None:
        lines["note"] = evaluation.shortfall
    for what, text in lines.items():
        terminal.print_fact(console, what, text)
    console.print()
    terminal.print_whole(console, _variance_table(evaluation))
    if by_class:
        terminal.print_whole(console, _class_table(evaluation))
    files = [("run", run_dir), ("report", run_dir / REPORT)]
    for what, where in files if (run_dir / REPORT).exists() else files[:1]:
        terminal.print_fact(console, what, where)


def _error_lines(total: Estimate, unit: Unit) -> dict[str, str]:
    """The parts of the standard error of the total, if the estimator separates them."""
    if total.mc_stderr is None or total.data_stderr is None:
        return {"error": "Monte Carlo error and data set error; this estimator does not separate them"}
    return {
        "MC error": f"{terminal.short(total.mc_stderr * unit.per_nat)}, reduced by more network evaluations",
        "data error": f"{terminal.short(total.data_stderr * unit.per_nat)}, reduced by more examples only",
    }


def _variance_table(evaluation: Evaluation) -> Table:
    unit = evaluation.unit
    drawn = Table(
        title=f"reverse variance, {unit.label}, from the same evaluations",
        title_justify="left",
        title_style="bold",
    )
    drawn.add_column("variance", no_wrap=True)
    drawn.add_column("first step", no_wrap=True)
    for column in ("total", "L_0", "difference"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for name, figures in bounds_by_variance(evaluation).items():
        cells = [
            terminal.plus_minus(
                figures[f"{evaluation.split}/{unit.metric}"],
                figures[f"{evaluation.split}/{unit.metric}_stderr"],
            ),
            terminal.short(figures[f"{evaluation.split}/L_0"]),
        ]
        difference = "–"
        if "difference" in figures:
            difference = terminal.plus_minus(figures["difference"], figures["difference_stderr"], sign=True)
        drawn.add_row(name, figures["first_step"], *cells, difference)
    return drawn


def _class_table(evaluation: Evaluation) -> Table:
    parts = (evaluation.unit.metric, "L_0", "L_t")
    title = f"by class, {evaluation.unit.label}"
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for column in ("class", "examples", "total", *parts[1:]):
        drawn.add_column(column, justify="right", no_wrap=True)
    for row in class_rows(evaluation):
        figures = [terminal.plus_minus(row[part], row[f"{part}_stderr"]) for part in parts]
        drawn.add_row(printable(row.get("name", row["class"])), str(row["count"]), *figures)
    return drawn
