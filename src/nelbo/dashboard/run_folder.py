"""Reading what a run left behind. Every file may be missing; one that is there must be readable."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nelbo.evaluation.table import SCHEMA
from nelbo.evaluation.units import Unit, unit_of

CONFIG, SUMMARY, METRICS, TERMS = ".hydra/config.yaml", "summary.json", "metrics.csv", "bound.parquet"


class RunFolderError(ValueError):
    """A folder that is no run, or a file of a run that cannot be read; the message names it."""


@dataclass(frozen=True)
class Series:
    """A metric against step."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Terms:
    """Sums over the draws of each term of the chain, (T,) float64, nats per example; row 0 is t = 1, L_0.

    Attributes:
        count: draws; 0 where a term was not drawn.
        sum: of the term.
        sum_of_squares: of the term.
        sum_of_errors: of x0_hat's mean squared error; NaN where it was not measured.
    """

    count: np.ndarray
    sum: np.ndarray
    sum_of_squares: np.ndarray
    sum_of_errors: np.ndarray


@dataclass(frozen=True)
class Run:
    """A run's files, read.

    Attributes:
        path: the folder.
        config: what was run, as plain values, with interpolations as they were written.
        config_text: the same, as a person wrote it.
        summary: ``summary.json``; empty while the run is not finished.
        metrics: every column of ``metrics.csv``.
        terms: of ``bound.parquet``, by split and step, steps in order.
        samples: grids by step, in order.
    """

    path: Path
    config: dict[str, Any]
    config_text: str
    summary: dict[str, Any]
    metrics: dict[str, Series]
    terms: dict[str, dict[int, Terms]]
    samples: dict[int, Path]

    @property
    def ledger(self) -> dict[str, Any]:
        """What the test bound measured; empty while it is not known."""
        return self.summary.get("ledger", {})

    @property
    def is_discrete(self) -> bool:
        """Whether the bound is a code length in bits/dim, and not that of a density, in nats."""
        return not any(name.endswith("/nelbo") for name in (*self.metrics, *self.summary))

    @cached_property
    def unit(self) -> Unit:
        """In which the run is read: told by the ledger, else inferred from L_0, which is in both files."""
        if "dims" in self.ledger:
            return unit_of(self.ledger["dims"], self.ledger["levels"])
        if not self.is_discrete:
            return unit_of(1, None)
        read, steps = self.final("val/L_0"), self.last_terms("val")
        if read is None or steps is None or not steps.sum[0]:
            return Unit(metric="bpd", label="nats", per_nat=1.0)  # nothing to convert by
        return Unit(metric="bpd", label="bits/dim", per_nat=read * float(steps.count[0] / steps.sum[0]))

    def final(self, metric: str) -> float | None:
        """The last value of a metric, None if there is none."""
        if metric in self.summary:
            return float(self.summary[metric])
        series = self.metrics.get(metric)
        return None if series is None else float(series.values[-1])

    def last_terms(self, split: str) -> Terms | None:
        """The last measurement of a split."""
        measured = self.terms.get(split)
        return measured[max(measured)] if measured else None


def read_run(path: Path) -> Run:
    """Read a run's folder.

    Raises:
        RunFolderError: when there is no run in it, or one of its files is broken.
    """
    if not path.is_dir():
        raise RunFolderError(f"{path}: there is no such folder")
    if not any((path / name).is_file() for name in (SUMMARY, METRICS, TERMS)):
        raise RunFolderError(
            f"{path}: not the folder of a run: neither {SUMMARY} nor {METRICS} nor {TERMS} is in it"
        )
    text = _read(path / CONFIG, Path.read_text) or ""
    return Run(
        path=path,
        config=_read(path / CONFIG, _yaml) or {},
        config_text=text,
        summary=_read(path / SUMMARY, _json) or {},
        metrics=_read(path / METRICS, _metrics) or {},
        terms=_read(path / TERMS, _terms) or {},
        samples={int(p.stem.split("_")[-1]): p for p in sorted((path / "samples").glob("step_*.png"))},
    )


def _read(path: Path, how: Any) -> Any:
    """What ``how`` makes of the file; None where it is missing."""
    if not path.is_file():
        return None
    try:
        return how(path)
    except (OSError, ValueError, KeyError, yaml.YAMLError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path}: cannot be read ({reason})") from error


def _yaml(path: Path) -> dict[str, Any]:
    return _mapping(yaml.safe_load(path.read_text()))


def _json(path: Path) -> dict[str, Any]:
    return _mapping(json.loads(path.read_text()))


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("expected keys and values")
    return content


def _metrics(path: Path) -> dict[str, Series]:
    """Columns of a sparse table; of several values at one step the last counts."""
    columns: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            for name, cell in row.items():
                if cell:
                    columns.setdefault(name, {})[step] = float(cell)
    return {
        name: Series(np.array(sorted(column)), np.array([column[step] for step in sorted(column)]))
        for name, column in columns.items()
        if name != "epoch"
    }


def _terms(path: Path) -> dict[str, dict[int, Terms]]:
    """Dense tables of every measurement.

    A measurement is a block of rows with one step, one split and rising t. Where a step was measured twice
    (at the end of training, or after going back to a checkpoint) the last one counts: the draws are the
    same, and adding them up would make errors look smaller than they are.
    """
    table = pq.read_table(path, schema=SCHEMA)
    split = np.array(table["split"].to_pylist(), dtype=object)
    column = {name: table[name].to_numpy() for name in table.column_names if name != "split"}
    step, t = column["step"], column["t"]
    T = int(t.max(initial=1))
    measured: dict[str, dict[int, Terms]] = {}
    for rows in _blocks(step, split, t):
        measured.setdefault(str(split[rows][0]), {})[int(step[rows][0])] = Terms(
            *(
                _dense(t[rows], column[name][rows], T)
                for name in ("count", "sum", "sum_of_squares", "sum_of_errors")
            )
        )
    return {name: dict(sorted(by_step.items())) for name, by_step in measured.items()}


def _blocks(step: np.ndarray, split: np.ndarray, t: np.ndarray) -> Iterator[slice]:
    begins = (np.diff(step) != 0) | (split[1:] != split[:-1]) | (np.diff(t) <= 0)
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), len(step)] if len(step) else []
    return (slice(low, high) for low, high in pairwise(edges))


def _dense(t: np.ndarray, values: np.ndarray, T: int) -> np.ndarray:
    dense = np.zeros(T)
    dense[t - 1] = values.astype(float)
    return dense
