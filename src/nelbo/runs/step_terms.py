"""bound.parquet, read: the sums over the draws of every term of the chain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nelbo.runs import parquet_file

REQUIRED = ("step", "split", "t", "sum", "sum_of_squares", "count")


@dataclass(frozen=True)
class Terms:
    """Sums over the draws of each term of a chain of K steps, (K,) float64, nats per example.

    Row 0 is L_0, whatever its t.

    Attributes:
        t: of each step, clean to noisy; a full chain has 1..T, a shorter one fewer of them.
        count: draws; 0 where a term was not drawn.
        sum: of the term.
        sum_of_squares: of the term.
        sum_of_errors: of x0_hat's mean squared error; NaN where it was not measured.
        sum_of_fractions: of where between its limits a learned variance lies; NaN where it is fixed.
    """

    t: np.ndarray
    count: np.ndarray
    sum: np.ndarray
    sum_of_squares: np.ndarray
    sum_of_errors: np.ndarray
    sum_of_fractions: np.ndarray


SUMS = tuple(field.name for field in fields(Terms))[1:]


def read_terms(path: Path, ledger: Mapping[str, Any]) -> dict[str, dict[int, Terms]]:
    """The terms of every measurement, by split and step, steps in order.

    A measurement is a block of rows with one step, one split and rising t. Where a step was measured twice
    (at the end of training, or after going back to a checkpoint) the last one counts: the draws are the
    same, and adding them up would make errors look smaller than they are.

    Args:
        path: of bound.parquet.
        ledger: says which t the chain visits; empty where it is not known.

    Raises:
        ValueError: for a table that lacks a column, or has a t that is not on the chain.
    """
    table = parquet_file.read(path)
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    split = np.array(table["split"].to_pylist(), dtype=object)
    unknown = np.full(table.num_rows, np.nan)
    column = {
        name: table[name].to_numpy() if name in table.column_names else unknown  # older runs lack a few
        for name in ("step", "t", *SUMS)
    }
    step, t = column["step"], column["t"]
    chain = chain_timesteps(ledger, at_least=int(t.max(initial=1)))
    if not np.isin(t, chain).all():
        raise ValueError(f"t = {t[~np.isin(t, chain)][0]} is not a step of the chain in the ledger")
    measured: dict[str, dict[int, Terms]] = {}
    for rows in _blocks(step, split, t):
        sums = {name: _on_chain(chain, t[rows], column[name][rows]) for name in SUMS}
        measured.setdefault(str(split[rows][0]), {})[int(step[rows][0])] = Terms(t=chain, **sums)
    return {name: dict(sorted(by_step.items())) for name, by_step in measured.items()}


def chain_timesteps(ledger: Mapping[str, Any], at_least: int = 1) -> np.ndarray:
    """(K,) t of each step: as the ledger lists them, else 1..T.

    Args:
        ledger: where it does not know T, T is ``at_least``.
        at_least: the largest t that was drawn; not every step is drawn by every estimator.
    """
    format_list = str(ledger.get("timesteps", ".."))
    if ".." not in format_list:
        return np.array(format_list.split(), dtype=int)
    return np.arange(1, max(int(ledger.get("T", 1)), at_least) + 1)


def _blocks(step: np.ndarray, split: np.ndarray, t: np.ndarray) -> Iterator[slice]:
    begins = (np.diff(step) != 0) | (split[1:] != split[:-1]) | (np.diff(t) <= 0)
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), len(step)] if len(step) else []
    return (slice(low, high) for low, high in pairwise(edges))


def _on_chain(chain: np.ndarray, t: np.ndarray, values: np.ndarray) -> np.ndarray:
    everywhere = np.zeros(len(chain))
    everywhere[np.searchsorted(chain, t)] = values.astype(float)
    return everywhere
