"""bound.parquet: L_t against t, one row per (step, split, t), in nats.

Columns: ``step`` (optimizer steps so far), ``split`` (``train`` rows come from the training batches since
the rows before them, ``val`` rows from one validation), ``t``, ``sum``, ``sum_of_squares``, ``count``. The
mean of L_t is sum / count; rows of several steps may be added. The row with the smallest t is L_0.
``sum_of_errors`` adds up the mean squared error of x0_hat per dimension, in the units of the data, and
``sum_of_fractions`` where between its limits a learned variance lies; training batches measure neither.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, open_regular
from nelbo.diffusion.schedules.base import MAX_STEPS
from nelbo.evaluation.step_table import StepTable
from nelbo.runs import parquet_file

FILE_NAME = "bound.parquet"
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("split", pa.string()),
        ("t", pa.int32()),
        ("sum", pa.float64()),
        ("sum_of_squares", pa.float64()),
        ("count", pa.int64()),
        ("sum_of_errors", pa.float64()),
        ("sum_of_fractions", pa.float64()),
    ]
)


# columns of sums, by the name of their attribute
SUMS = {
    "count": "count",
    "sum": "sum",
    "sum_of_squares": "sum_of_squares",
    "sum_of_errors": "sum_of_errors",
    "sum_of_fractions": "sum_of_interpolations",
}


def append(path: Path, step: int, split: str, table: StepTable) -> None:
    """Add the drawn steps of a table to the file; a reader sees the file before or after, never between.

    Args:
        path: the parquet file, made when it is missing.
        step: optimizer steps so far.
        split: ``train``, ``val`` or ``test``.
        table: sums of each step; steps without draws are omitted.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    rows = int(table.drawn.sum())
    sums = {column: getattr(table, name)[table.drawn].numpy() for column, name in SUMS.items()}
    columns = {"step": [step] * rows, "split": [split] * rows, "t": table.t[table.drawn].numpy(), **sums}
    new = pa.table(
        # NaN becomes null
        [pa.array(columns[field.name], from_pandas=True).cast(field.type) for field in SCHEMA],
        schema=SCHEMA,
    )
    old = [_read_rows(path)] if path.exists() else []
    parquet_file.write(path, pa.concat_tables([*old, new]))


def describe(path: Path) -> dict[str, Any]:
    """Number of rows and their checksum, to be compared when a run is resumed."""
    if not path.exists():
        return {"rows": 0, "sha256": None}
    with open_regular(path) as file:
        metadata = pq.read_metadata(file)
    return {"rows": metadata.num_rows, "sha256": metadata.metadata[parquet_file.CHECKSUM].decode()}


def restore(path: Path, rows: int, sha256: str | None) -> None:
    """Keep the rows that were there when :func:`describe` was called, and drop those after them.

    Args:
        path: the parquet file.
        rows: their number.
        sha256: their checksum.

    Raises:
        DamagedFileError: naming the file, when it is missing or these rows are not what they were.
        OSError: naming the file, if it cannot be written.
    """
    if rows == 0:
        path.unlink(missing_ok=True)
        return
    try:
        kept = _read_rows(path, verified=False).slice(0, rows)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path}: it is missing") from error
    if len(kept) != rows or parquet_file.checksum(kept) != sha256:
        raise DamagedFileError(f"{path}: damaged, its rows are not those that were written")
    parquet_file.write(path, kept)


def _read_rows(path: Path, verified: bool = True) -> pa.Table:
    rows = parquet_file.read(path, verified)
    if not rows.schema.equals(SCHEMA):
        raise DamagedFileError(f"{path}: damaged, its columns are not those that were written")
    return rows


def read(path: Path, ledger: Mapping[str, Any]) -> dict[str, dict[int, StepTable]]:
    """Read the table of every measurement, by split and step, steps in order.

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
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    split = np.array(table["split"].to_pylist(), dtype=object)
    column = {name: table[name].to_numpy() for name in ("step", "t", *SUMS)}
    step, t = column["step"], column["t"]
    chain = chain_timesteps(ledger, at_least=int(t.max(initial=1)))
    if not np.isin(t, chain).all():
        raise ValueError(f"t = {t[~np.isin(t, chain)][0]} is not a step of the chain in the ledger")
    measured: dict[str, dict[int, StepTable]] = {}
    for rows in _blocks(step, split, t):
        sums = {name: _on_chain(chain, t[rows], column[of][rows]) for of, name in SUMS.items()}
        found = StepTable(t=torch.from_numpy(chain), **sums)
        measured.setdefault(str(split[rows][0]), {})[int(step[rows][0])] = found
    return {name: dict(sorted(by_step.items())) for name, by_step in measured.items()}


def chain_timesteps(ledger: Mapping[str, Any], at_least: int = 1) -> np.ndarray:
    """(K,) t of each step: as the ledger lists them, else 1..T; in continuous time 1..K.

    Args:
        ledger: where it does not know T, T is ``at_least``.
        at_least: the largest t that was drawn; not every step is drawn by every estimator.

    Raises:
        ValueError: for a chain that is too long.
    """
    timesteps = str(ledger.get("timesteps", ".."))
    if ".." in timesteps:  # in continuous time there is no T, and its bins are numbered
        num_steps = max(int(timesteps.rpartition("..")[2] or ledger.get("T", 1)), at_least)
    elif ledger.get("T", 1) is None:  # levels u, whose steps are numbered
        num_steps = len(timesteps.split())
    else:
        return np.array(timesteps.split(), dtype=int)
    if num_steps > MAX_STEPS:
        raise ValueError(f"a chain of {num_steps} steps, and at most {MAX_STEPS} are supported")
    return np.arange(1, num_steps + 1)


def _blocks(step: np.ndarray, split: np.ndarray, t: np.ndarray) -> Iterator[slice]:
    begins = (np.diff(step) != 0) | (split[1:] != split[:-1]) | (np.diff(t) <= 0)
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), len(step)] if len(step) else []
    return (slice(low, high) for low, high in pairwise(edges))


def _on_chain(chain: np.ndarray, t: np.ndarray, values: np.ndarray) -> Tensor:
    everywhere = np.zeros(len(chain))
    everywhere[np.searchsorted(chain, t)] = values.astype(float)
    return torch.from_numpy(everywhere)
