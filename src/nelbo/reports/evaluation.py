"""The tables that ``evaluate.py`` prints."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.table import Table

from nelbo.evaluation.accumulator import BoundEstimate
from nelbo.evaluation.evaluation import Evaluation
from nelbo.evaluation.likelihoods.sandwich import GAP, LOWER
from nelbo.evaluation.units import Unit
from nelbo.reports import terminal
from nelbo.reports.comparison.choices import describe_steps
from nelbo.reports.numbers import plus_minus, short
from nelbo.runs.evaluation_file import bounds_by_variance, class_rows, likelihood_rows
from nelbo.runs.paths import REPORT
from nelbo.text import printable


def print_evaluation(evaluation: Evaluation, run_dir: Path, by_class: bool, searched: bool) -> None:
    """Print the bound term by term, the parts of its error, other variances, and optionally the classes.

    Args:
        evaluation: to print.
        run_dir: its folder.
        by_class: whether to print the classes.
        searched: whether the timesteps were searched, at a cost that is not counted.
    """
    console, unit, estimate = terminal.make_console(), evaluation.unit, evaluation.measurements[0].estimate
    ledger = evaluation.ledgers[0]
    console.print()
    terminal.print_whole(console, terminal.make_bound_table(evaluation.metrics, (evaluation.split,), unit))
    in_full = estimate.num_examples * evaluation.chain.num_steps
    search = "; the search of spacing=optimal is not included" if searched else ""
    lines = _error_lines(estimate, unit) | {
        "measured": f"{estimate.num_examples:,} examples of {ledger.data} {ledger.split}, "
        f"t = {describe_steps(ledger.to_dict())}, {ledger.variance}, {ledger.weights} weights, "
        + ("x0_hat clipped" if ledger.clip else "x0_hat not clipped"),
        "cost": f"{estimate.num_evaluations:,} network evaluations of the bound (the full chain of every "
        f"example: {in_full:,}){search}",
    }
    if evaluation.shortfall is not None:
        lines["note"] = evaluation.shortfall
    for label, text in lines.items():
        terminal.print_note(console, label, text)
    console.print()
    terminal.print_whole(console, _variance_table(evaluation))
    if evaluation.likelihoods:
        terminal.print_whole(console, _likelihood_table(evaluation))
        for name, found in evaluation.likelihoods.items():
            terminal.print_note(console, name, "; ".join((found.label, *_details(found.details))))
    if evaluation.on_samples:
        terminal.print_whole(console, _sample_table(evaluation))
        for name, found in evaluation.on_samples.items():
            size = short(found.details["effective_sample_size"])
            terminal.print_note(console, name, f"{found.label}; effective sample size {size}")
    if evaluation.baselines:
        terminal.print_whole(console, _baseline_table(evaluation))
    if by_class:
        terminal.print_whole(console, _class_table(evaluation))
    files = [("run", run_dir), ("report", run_dir / REPORT)]
    for label, path in files if (run_dir / REPORT).exists() else files[:1]:
        terminal.print_fact(console, label, path)


def _details(values: Mapping[str, float]) -> Iterator[str]:
    """Values with their names, and with their standard errors where they have one."""
    for name, value in values.items():
        if not name.endswith("_stderr"):
            error = values.get(f"{name}_stderr")
            yield f"{name.replace('_', ' ')} {short(value) if error is None else plus_minus(value, error)}"


def _error_lines(estimate: BoundEstimate, unit: Unit) -> dict[str, str]:
    """The parts of the standard error of the total, by label."""
    total = estimate.total
    if total.mc_stderr is None or total.data_stderr is None:
        return {"error": "Monte Carlo error and data set error; this estimator does not separate them"}
    if total.mc_stderr >= total.stderr > 0.0:
        return {
            "MC error": f"{short(total.stderr * unit.per_nat)}, all of the error; reduced by more network "
            "evaluations",
            "data error": f"not resolved with {estimate.num_examples:,} examples: the estimate of the MC "
            f"error, {short(total.mc_stderr * unit.per_nat)}, is not below the error of the total",
        }
    return {
        "MC error": f"{short(total.mc_stderr * unit.per_nat)}, reduced by more network evaluations",
        "data error": f"{short(total.data_stderr * unit.per_nat)}, reduced by more examples only",
    }


def _variance_table(evaluation: Evaluation) -> Table:
    unit = evaluation.unit
    drawn = terminal.make_table(f"reverse variance, {unit.label}, from the same evaluations")
    drawn.add_column("variance", no_wrap=True)
    drawn.add_column("first step", no_wrap=True)
    for column in ("total", "L_0", "difference"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for name, metrics in bounds_by_variance(evaluation).items():
        cells = [
            plus_minus(
                metrics[f"{evaluation.split}/{unit.metric}"],
                metrics[f"{evaluation.split}/{unit.metric}_stderr"],
            ),
            short(metrics[f"{evaluation.split}/L_0"]),
        ]
        difference = "–"
        if "difference" in metrics:
            difference = plus_minus(metrics["difference"], metrics["difference_stderr"], sign=True)
        drawn.add_row(name, metrics["first_step"], *cells, difference)
    return drawn


def _likelihood_table(evaluation: Evaluation) -> Table:
    """The bound and the other likelihoods on the same examples, as upper bounds or estimates of -log p."""
    unit = evaluation.unit
    drawn = terminal.make_table(f"-log p, {unit.label}, on the same examples")
    drawn.add_column("likelihood", no_wrap=True)
    for column in ("value", "MC error", "from the bound", "evaluations"):
        drawn.add_column(column, justify="right", no_wrap=True)
    bound = evaluation.measurements[0].estimate
    rows = likelihood_rows(evaluation)
    measured = [("bound", bound.total, "–", bound.num_evaluations)]
    for name, found in evaluation.likelihoods.items():
        difference = plus_minus(rows[name]["difference"], rows[name]["difference_stderr"], sign=True)
        measured.append((name, found.estimate.total, difference, found.estimate.num_evaluations))
    for name, total, difference, evaluations in measured:
        drawn.add_row(
            name,
            plus_minus(total.mean * unit.per_nat, total.stderr * unit.per_nat),
            "–" if total.mc_stderr is None else short(total.mc_stderr * unit.per_nat),
            difference,
            f"{evaluations:,}",
        )
    return drawn


def _sample_table(evaluation: Evaluation) -> Table:
    """Bounds of -log p from both sides, on samples of the model."""
    unit = evaluation.unit
    number = evaluation.measurements[0].estimate.num_examples
    drawn = terminal.make_table(f"-log p, {unit.label}, on {number:,} samples of the model")
    drawn.add_column("likelihood", no_wrap=True)
    for column in ("lower bound", "upper bound", "gap", "evaluations"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for name, found in evaluation.on_samples.items():
        total, parts = found.estimate.total, found.details
        drawn.add_row(
            name,
            plus_minus(parts[LOWER], parts[f"{LOWER}_stderr"]),
            plus_minus(total.mean * unit.per_nat, total.stderr * unit.per_nat),
            plus_minus(parts[GAP], parts[f"{GAP}_stderr"]),
            f"{found.estimate.num_evaluations:,}",
        )
    return drawn


def _baseline_table(evaluation: Evaluation) -> Table:
    """The bound, and the size of the same images in lossless formats."""
    drawn = terminal.make_table(f"lossless formats, {evaluation.unit.label}, of the same images")
    drawn.add_column("format")
    for column in ("single files", "one mosaic"):
        drawn.add_column(column, justify="right", no_wrap=True)
    bound = short(evaluation.measurements[0].estimate.total.mean * evaluation.unit.per_nat)
    drawn.add_row("variational bound", bound, bound)
    for found in evaluation.baselines.values():
        single, mosaic = ("–" if size is None else short(size) for size in (found.single, found.mosaic))
        drawn.add_row(found.label, single, mosaic)
        if found.missing is not None:
            drawn.caption = f"{found.label}: {found.missing}"
    return drawn


def _class_table(evaluation: Evaluation) -> Table:
    parts = (evaluation.unit.metric, "L_0", "L_t")
    drawn = terminal.make_table(f"by class, {evaluation.unit.label}")
    for column in ("class", "examples", "total", *parts[1:]):
        drawn.add_column(column, justify="right", no_wrap=True)
    for row in class_rows(evaluation):
        values = [plus_minus(row[part], row[f"{part}_stderr"]) for part in parts]
        drawn.add_row(printable(row.get("name", row["class"])), str(row["count"]), *values)
    return drawn
