"""The head of the page: the bound of one run, its error, and its parts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nelbo.evaluation.units import PARTS
from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import PART_COLOURS, SPLIT_NAMES
from nelbo.reports.numbers import VISIBLE, cell, duration, plus_minus, short
from nelbo.runs.run_folder import Run


@dataclass(frozen=True)
class Part:
    """A part of the bound; ``share`` is None for a density's bound, whose parts may be negative."""

    symbol: str
    name: str
    value: str
    share: float | None
    colour: str


@dataclass(frozen=True)
class Headline:
    """The bound as text.

    Attributes:
        value: the bound.
        error: its standard error; empty if unknown.
        unit: of both.
        notes: one line each: what was measured, its cost, the parts of the error.
        parts: L_0, L_t, L_T.
    """

    value: str
    error: str
    unit: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]


def headline(entry: Entry) -> Headline | None:
    """The bound of the best split that was measured; None if there is none."""
    run, split = entry.run, entry.run.held_out
    if split is None:
        return None
    total = run.final(f"{split}/{run.unit.metric}")
    value, _, error = plus_minus(total, run.final(f"{split}/{run.unit.metric}_stderr")).partition(" ± ")
    values = {part: run.final(f"{split}/{part}") or 0.0 for part in PARTS}
    adds_up = bool(total) and min(values.values()) >= 0
    parts = tuple(
        Part(
            symbol=part[2:],
            name=name,
            value=plus_minus(
                values[part], run.final(f"{split}/{part}_stderr") if abs(values[part]) >= VISIBLE else None
            ),
            share=values[part] / total if adds_up and total else None,
            colour=PART_COLOURS[part],
        )
        for part, name in PARTS.items()
    )
    notes = (_measured(run, split), _chain(run, split), _error(run, split))
    return Headline(value, error, run.unit.label, tuple(note for note in notes if note), parts)


def facts(run: Run) -> dict[str, str]:
    """What was trained: data, model and other choices by name."""
    config = run.config
    found = {
        "data": class_name(config.get("data")),
        "model": class_name(config.get("model")),
        "schedule": class_name(config.get("schedule")),
        "T": _num_steps(config.get("schedule")),
        "parameterization": class_name(config.get("parameterization")),
        "variance": run.ledger.get("variance") or class_name(config.get("variance")),
        "loss": class_name(config.get("loss")),
        "steps": cell(run.summary["step"]) if run.summary.get("step") is not None else None,
        "trained for": duration(run.summary["train_seconds"]) if "train_seconds" in run.summary else None,
        "checkpoint": run.summary.get("checkpoint"),
    }
    return {name: value for name, value in found.items() if value}


def _num_steps(schedule: Any) -> str | None:
    """T, or ∞ for a schedule in continuous time; None where it is not known."""
    if not isinstance(schedule, Mapping) or "num_steps" not in schedule:
        return None
    return "∞" if schedule["num_steps"] is None else cell(schedule["num_steps"])


def class_name(node: Any) -> str | None:
    """The class of a node of the configuration; None if it has none."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return target.rpartition(".")[2] if isinstance(target, str) else None


def _measured(run: Run, split: str) -> str:
    name = f"{SPLIT_NAMES[split]} split"
    if split != run.ledger.get("split"):
        return name if split != "train" else "training batches"
    kind, _, sigma_rel = run.ledger["weights"].partition("_")
    weights = {"ema": "averaged weights", "raw": "raw weights"}[kind]
    weights += f" (sigma_rel {sigma_rel})" if sigma_rel else ""
    return f"{name}, {run.ledger['num_examples']:,} examples, {weights}"


def _chain(run: Run, split: str) -> str:
    """The length of the chain, and the number of network evaluations."""
    ledger = run.ledger
    if split != ledger.get("split") or not {"K", "T", "num_evaluations"} <= ledger.keys():
        return ""
    K, T = ledger["K"], ledger["T"]
    if T is None:
        chain = "continuous time" if K is None else f"a chain of {K:,} steps in continuous time"
    else:
        chain = f"all {T:,} timesteps" if K == T else f"a chain of {K:,} of {T:,} timesteps"
    return f"{chain}, {ledger['num_evaluations']:,} network evaluations"


def _error(run: Run, split: str) -> str:
    """The Monte Carlo error, which more evaluations reduce, and the data set error."""
    name = f"{split}/{run.unit.metric}_stderr"
    error, monte_carlo = run.final(name), run.final(f"{name}_monte_carlo")
    if error is None or monte_carlo is None or not math.isfinite(error + monte_carlo):
        return ""
    if monte_carlo >= error > 0.0:
        return f"Monte Carlo error {short(error, 2)}, data set error not resolved"
    data_set = math.sqrt(max(error**2 - monte_carlo**2, 0.0))
    return f"Monte Carlo error {short(monte_carlo, 2)}, data set error {short(data_set, 2)}"
