"""The first thing on the page: the bound of one run, its error, and its parts."""

import math
from dataclasses import dataclass
from typing import Any

from nelbo.reports.html.entry import Entry
from nelbo.reports.html.style import PART_COLOURS, SPLIT_NAMES
from nelbo.reports.numbers import cell, duration, plus_minus, short
from nelbo.runs.run_folder import Run

PART_NAMES = {"L_0": "reconstruction", "L_t": "denoising", "L_T": "prior"}


@dataclass(frozen=True)
class Part:
    """A piece of the bound; ``share`` is None where parts do not add up as shares (a density's bound)."""

    symbol: str
    name: str
    value: str
    share: float | None
    colour: str


@dataclass(frozen=True)
class Headline:
    """The bound, in words.

    Attributes:
        value: the bound.
        error: its standard error; empty where it is not known.
        unit: of both.
        notes: what was measured, and where the error comes from, a line each.
        parts: L_0, L_t, L_T.
    """

    value: str
    error: str
    unit: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]


def headline(entry: Entry) -> Headline | None:
    """The bound of the best split there is; None while none was measured."""
    run, split = entry.run, entry.run.held_out
    if split is None:
        return None
    total = run.final(f"{split}/{run.unit.metric}")
    value, _, error = plus_minus(total, run.final(f"{split}/{run.unit.metric}_stderr")).partition(" ± ")
    values = {part: run.final(f"{split}/{part}") or 0.0 for part in PART_NAMES}
    adds_up = bool(total) and min(values.values()) >= 0
    parts = tuple(
        Part(
            symbol=part[2:],
            name=name,
            value=plus_minus(values[part], run.final(f"{split}/{part}_stderr")),
            share=values[part] / total if adds_up and total else None,
            colour=PART_COLOURS[part],
        )
        for part, name in PART_NAMES.items()
    )
    notes = (_measured(run, split), _chain(run, split), _error(run, split))
    return Headline(value, error, run.unit.label, tuple(note for note in notes if note), parts)


def facts(run: Run) -> dict[str, str]:
    """What was trained, in a line."""
    config = run.config
    found = {
        "data": class_name(config.get("data")),
        "model": class_name(config.get("model")),
        "schedule": class_name(config.get("schedule")),
        "T": cell(steps) if (steps := config.get("schedule", {}).get("num_steps")) else None,
        "parameterization": class_name(config.get("parameterization")),
        "variance": run.ledger.get("variance") or class_name(config.get("variance")),
        "loss": class_name(config.get("loss")),
        "steps": cell(run.summary["step"]) if run.summary.get("step") is not None else None,
        "trained for": duration(run.summary["train_seconds"]) if "train_seconds" in run.summary else None,
        "checkpoint": run.summary.get("checkpoint"),
    }
    return {name: value for name, value in found.items() if value}


def class_name(node: Any) -> str | None:
    """What a node of the configuration makes."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return target.rpartition(".")[2] if isinstance(target, str) else None


def _measured(run: Run, split: str) -> str:
    name = f"{SPLIT_NAMES[split]} split"
    if split != run.ledger.get("split"):
        return name if split != "train" else "training batches"
    weights = {"ema": "averaged weights", "raw": "raw weights"}[run.ledger["weights"]]
    return f"{name}, {run.ledger['num_examples']:,} examples, {weights}"


def _chain(run: Run, split: str) -> str:
    """How long the chain was, and what the figure cost."""
    ledger = run.ledger
    if split != ledger.get("split") or not {"K", "T", "num_evaluations"} <= ledger.keys():
        return ""
    K, T = ledger["K"], ledger["T"]
    chain = f"all {T:,} timesteps" if K == T else f"a chain of {K:,} of {T:,} timesteps"
    return f"{chain}, {ledger['num_evaluations']:,} network evaluations"


def _error(run: Run, split: str) -> str:
    """What of the error is chance, which more evaluations remove, and what the choice of examples."""
    name = f"{split}/{run.unit.metric}_stderr"
    error, chance = run.final(name), run.final(f"{name}_monte_carlo")
    if error is None or chance is None or not math.isfinite(error + chance):
        return ""
    data_set = math.sqrt(max(error**2 - chance**2, 0.0))
    return f"of the error, {short(chance, 2)} is chance, {short(data_set, 2)} the data set being a sample"
