"""What ``evaluate.py`` leaves behind and shows: evaluation.json, tables, and the page about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from nelbo.atomic_file import write_json
from nelbo.diffusion.chain import Chain
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.by_class import bound_by_class
from nelbo.evaluation.ledger import Ledger
from nelbo.evaluation.measure import Measurement
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.t_bins import share_below_half_bin, shares_by_t_bin
from nelbo.evaluation.units import Unit
from nelbo.reports import terminal
from nelbo.reports.comparison.choices import steps_in_words
from nelbo.reports.html import report_finished_run
from nelbo.runs import bound_table as table
from nelbo.runs import example_table
from nelbo.runs.paths import EVALUATION, REPORT
from nelbo.text import printable


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        split: that was measured.
        unit: in which it is read.
        chain: that was measured.
        is_quantised: whether the data has levels, or is continuous.
        measurements: the bound that was asked for, then the same with other variances.
        ledgers: of each of them.
        checkpoint: of the model.
        step: optimizer steps of its training, where the checkpoint says.
        config: that it was trained with.
        label: (N,) class of each example, None for data without classes.
        class_names: name of each class, None for classes without names.
        shortfall: what was wanted of the measurement and not reached, in a sentence; None if all was.
    """

    split: str
    unit: Unit
    chain: Chain
    is_quantised: bool
    measurements: list[Measurement]
    ledgers: list[Ledger]
    checkpoint: Path
    step: int | None
    config: dict[str, Any]
    label: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    shortfall: str | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Flat figures of the bound that was asked for."""
        return self.unit.metrics(self.split, self.measurements[0].estimate)


def write_evaluation(evaluation: Evaluation, run_dir: Path) -> None:
    """Write evaluation.json, bound.parquet, examples.parquet and report.html.

    Raises:
        OSError: when one of them cannot be written; ReportError when it is the report, the last of them.
    """
    measured, ledger = evaluation.measurements[0], evaluation.ledgers[0]
    metrics, estimate = evaluation.metrics, measured.estimate
    contribution, chain, split = measured.steps.contribution, evaluation.chain, evaluation.split
    if evaluation.unit.is_code_length:
        shares = shares_by_t_bin(chain.timesteps(), contribution, estimate.prior.mean)
        metrics |= {f"{split}/share/{name}": share for name, share in shares.items()}
    below = share_below_half_bin(chain, contribution, estimate.total.mean)
    metrics[f"{split}/share_below_half_bin"] = below
    result = {
        **metrics,
        "network_evaluations": estimate.num_evaluations,
        "ledger": ledger.to_dict(),
        "variances": _variances(evaluation),
        **({} if evaluation.label is None else {"classes": list(class_rows(evaluation))}),
        "checkpoint": str(evaluation.checkpoint),
        **({} if evaluation.step is None else {"step": evaluation.step}),
        "steps": list(step_rows(evaluation)),
        "config": evaluation.config,
    }
    step = evaluation.step or 0
    table.append(run_dir / table.FILE_NAME, step, split, chain.timesteps(), measured.steps)
    example_table.write(run_dir / example_table.FILE_NAME, measured.columns, measured.examples)
    write_json(run_dir / EVALUATION, result)
    report_finished_run(run_dir)


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


def step_rows(evaluation: Evaluation) -> Iterator[dict[str, float]]:
    """L_t against t, rate and distortion, one row per step that was drawn.

    ``mean`` of the term over its draws and its ``stderr``, draws taken as independent; ``contribution``: the
    unbiased estimate of what the step adds to the bound, to which its examples may be weighted unevenly;
    ``rate``: L_T and the contributions of all noisier steps, what was sent before x_t is known; ``rmse`` of
    x0_hat from x_t, on [0, 255] for quantised data. All but counts and errors in the unit of the bound.
    """
    measured, per_nat = evaluation.measurements[0], evaluation.unit.per_nat
    steps, prior = measured.steps, measured.estimate.prior.mean
    scale = 127.5 if evaluation.is_quantised else 1.0
    above = steps.contribution.flip(0).cumsum(0).flip(0) - steps.contribution
    columns = {
        "t": evaluation.chain.timesteps().double(),
        "mean": steps.mean * per_nat,
        "stderr": steps.stderr * per_nat,
        "count": steps.count,
        "contribution": steps.contribution * per_nat,
        "rate": (prior + above) * per_nat,
        "rmse": torch.full_like(steps.count, torch.nan) if steps.rmse is None else steps.rmse * scale,
    }
    drawn = steps.count > 0
    for values in zip(*(column[drawn].tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


def class_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """The bound of each class, one row each, in the unit of the bound; ``count`` is of its examples."""
    assert evaluation.label is not None, "there are no classes"
    unit, examples = evaluation.unit, evaluation.measurements[0].examples
    for number, bound in bound_by_class(examples, evaluation.label).items():
        row: dict[str, Any] = {"class": number, "count": bound.num_examples}
        if evaluation.class_names is not None:
            row["name"] = evaluation.class_names[number]
        for name, part in zip((unit.metric, "L_0", "L_t", "L_T"), bound.parts, strict=True):
            row |= {name: part.mean * unit.per_nat, f"{name}_stderr": part.stderr * unit.per_nat}
        yield row


def _variances(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The bound with each variance, and how much more it is than with the one that was asked for."""
    unit, chosen = evaluation.unit, evaluation.measurements[0]
    found: dict[str, dict[str, Any]] = {}
    for measured, ledger in zip(evaluation.measurements, evaluation.ledgers, strict=True):
        figures = unit.metrics(evaluation.split, measured.estimate)
        if measured is not chosen:
            more = paired_difference(measured.examples.sum(1), chosen.examples.sum(1))
            figures |= {
                "difference": more.mean * unit.per_nat,
                "difference_stderr": more.stderr * unit.per_nat,
            }
        found[ledger.variance] = {**figures, "first_step": ledger.first_step}
    return found


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
    for name, figures in _variances(evaluation).items():
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
