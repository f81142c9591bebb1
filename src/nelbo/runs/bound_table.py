"""bound.parquet: L_t against t, one row per (step, split, t), in nats.

Columns: ``step`` (optimizer steps so far), ``split`` (``train`` rows come from the training batches since
the rows before them, ``val`` rows from one validation), ``t``, ``sum``, ``sum_of_squares``, ``count``. The
mean of L_t is sum / count; rows of several steps may be added. The row with the smallest t is L_0.
``sum_of_errors`` adds up the mean squared error of x0_hat per dimension, in the units of the data, and
``sum_of_interpolations`` where between its limits a learned variance lies; training batches measure neither.

During a run new rows are files of their own in the folder ``bound.parts``, named by the number of rows before
them, so that a validation costs the same however many there were. Now and then, and at the end, they are
merged into ``bound.parquet``. The functions here read both.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, sync
from nelbo.diffusion.schedules.base import MAX_STEPS
from nelbo.evaluation.step_table import StepTable
from nelbo.runs import parquet_file

FILE_NAME = "bound.parquet"
MOST_PARTS = 100  # files of rows that are not merged
RUNNING_CHECKSUM = b"nelbo.running_sha256"  # metadata: checksum of all rows up to the end of the file
APPEND_ENDS = b"nelbo.append_ends"  # metadata: number of rows at the end of each append
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("split", pa.string()),
        ("t", pa.int32()),
        ("sum", pa.float64()),
        ("sum_of_squares", pa.float64()),
        ("count", pa.int64()),
        ("sum_of_errors", pa.float64()),
        ("sum_of_interpolations", pa.float64()),
    ]
)


# columns of sums, named as the attributes of a StepTable
SUMS = ("count", "sum", "sum_of_squares", "sum_of_errors", "sum_of_interpolations")


def append(path: Path, step: int, split: str, table: StepTable) -> None:
    """Add the drawn steps of a table; a reader sees the rows before or after, never between.

    Args:
        path: of bound.parquet, made when it is missing.
        step: optimizer steps so far.
        split: ``train``, ``val`` or ``test``.
        table: sums of each step; steps without draws are omitted.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    rows = int(table.drawn.sum())
    if rows == 0:
        return
    sums = {name: getattr(table, name)[table.drawn].numpy() for name in SUMS}
    columns = {"step": [step] * rows, "split": [split] * rows, "t": table.t[table.drawn].numpy(), **sums}
    new = pa.table(
        # NaN becomes null
        [pa.array(columns[field.name], from_pandas=True).cast(field.type) for field in SCHEMA],
        schema=SCHEMA,
    )
    before = describe(path)
    if before["rows"] == 0:
        shutil.rmtree(parts_folder(path), ignore_errors=True)
        _write(path, new, [rows])
        return
    if not parts_folder(path).exists():
        parts_folder(path).mkdir()
        sync(path.parent)
    part = parts_folder(path) / f"{before['rows']:012}.parquet"
    parquet_file.write(part, new, {RUNNING_CHECKSUM: extend(before["sha256"], new)})
    if len(_parts(path)) >= MOST_PARTS:
        merge(path)


def merge(path: Path) -> None:
    """Move all rows into the file itself.

    Raises:
        DamagedFileError: naming the file, when rows cannot be read.
        OSError: naming the file, if it cannot be written.
    """
    if parts_folder(path).exists():
        _write(path, *_read_rows(path))
        shutil.rmtree(parts_folder(path))


def describe(path: Path) -> dict[str, Any]:
    """Number of rows and their checksum, to be compared when a run is resumed.

    The checksum is that of :func:`extend`, one block of rows for each :func:`append`.

    Raises:
        DamagedFileError: naming a file that is damaged, or that :func:`append` did not write.
    """
    if not path.exists():
        return {"rows": 0, "sha256": None}
    last = [path, *_parts(path)][-1]
    metadata = parquet_file.read_metadata(last)
    found = (metadata.metadata or {}).get(RUNNING_CHECKSUM)
    if found is None:
        raise DamagedFileError(f"{last}: damaged, it has no checksum of its rows")
    return {"rows": _first_row(last, path) + metadata.num_rows, "sha256": found.decode("ascii", "replace")}


def restore(path: Path, rows: int, sha256: str | None) -> None:
    """Keep the rows that were there when :func:`describe` was called, and drop those after them.

    Args:
        path: of bound.parquet.
        rows: their number.
        sha256: their checksum.

    Raises:
        DamagedFileError: naming the file, when it is missing or these rows are not what they were.
        OSError: naming the file, if it cannot be written.
    """
    if rows == 0:
        path.unlink(missing_ok=True)
        shutil.rmtree(parts_folder(path), ignore_errors=True)
        return
    try:
        for part in reversed(_parts(path)):  # the last first: what an interruption leaves has no gap
            if _first_row(part, path) >= rows:
                part.unlink()
        found, ends = _read_rows(path, verified=False)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path}: it is missing") from error
    kept = found.slice(0, rows)
    ends = [*(end for end in ends if end < rows), rows]
    if len(kept) != rows or _checksum(kept, ends) != sha256:
        raise DamagedFileError(f"{path}: damaged, its rows are not those that were written")
    _write(path, kept, ends)
    if parts_folder(path).exists():
        shutil.rmtree(parts_folder(path))


def extend(chain: str | None, rows: pa.Table) -> str:
    """Checksum of blocks of rows and one more: that of the first block, then of the checksums so far."""
    block = parquet_file.checksum(rows)
    return block if chain is None else hashlib.sha256(f"{chain}{block}".encode()).hexdigest()


def _write(path: Path, rows: pa.Table, ends: Sequence[int]) -> None:
    """Write the file itself, of rows that were appended in blocks with these ends."""
    # the same bytes, however many parts the rows come from
    rows = rows.combine_chunks()
    parquet_file.write(
        path, rows, {RUNNING_CHECKSUM: _checksum(rows, ends), APPEND_ENDS: " ".join(map(str, ends))}
    )


def _checksum(rows: pa.Table, ends: Sequence[int]) -> str:
    """Checksum of all rows, as :func:`append` has extended it."""
    found = None
    for start, end in pairwise([0, *ends]):
        found = extend(found, rows.slice(start, end - start))
    assert found is not None, "there is at least one block"
    return found


def parts_folder(path: Path) -> Path:
    """The folder of the rows that are not yet in ``path``."""
    return path.with_suffix(".parts")


def _first_row(file: Path, path: Path) -> int:
    """Number of rows before those of a file."""
    return 0 if file == path else int(file.stem)


def _parts(path: Path) -> list[Path]:
    """The files of rows that are not in the file itself, in order."""
    folder = parts_folder(path)
    if not folder.is_dir():
        return []
    merged = parquet_file.read_metadata(path).num_rows
    parts = sorted(part for part in folder.glob("*.parquet") if part.stem.isdigit())
    # an interrupted merge leaves files whose rows are in the file itself
    return [part for part in parts if int(part.stem) >= merged]


def _read_rows(path: Path, verified: bool = True) -> tuple[pa.Table, list[int]]:
    """All rows, and the ends of the blocks that they were appended in.

    Raises:
        DamagedFileError: naming the file that is damaged, or before which rows are missing.
    """
    tables, ends = [], list[int]()
    for file, rows in _tables(path, verified):
        if not rows.schema.equals(SCHEMA):
            raise DamagedFileError(f"{file}: damaged, its columns are not those that were written")
        first = ends[-1] if ends else 0
        ends += [first + end for end in _append_ends(file, rows)]
        tables.append(rows.replace_schema_metadata(None))
    return pa.concat_tables(tables), ends


def _append_ends(file: Path, rows: pa.Table) -> list[int]:
    """Number of rows of a file at the end of each append; a part is one append.

    Raises:
        DamagedFileError: naming the file, for anything else than rising numbers up to that of its rows.
    """
    entry = (rows.schema.metadata or {}).get(APPEND_ENDS, str(len(rows)).encode()).split()
    ends = [int(end) for end in entry if end.isdigit()]
    if len(ends) != len(entry) or ends != sorted(ends) or ends[-1:] != [len(rows)]:
        raise DamagedFileError(f"{file}: damaged, its metadata does not say how its rows were appended")
    return ends


def _tables(path: Path, verified: bool = True) -> Iterator[tuple[Path, pa.Table]]:
    """Every file with its rows, in order.

    Raises:
        DamagedFileError: naming the file that is damaged, or before which rows are missing.
    """
    count = 0
    for file in (path, *_parts(path)):
        first = _first_row(file, path)
        if first < count:  # merged since the files were listed
            continue
        rows = parquet_file.read(file, verified)
        if first > count:
            raise DamagedFileError(f"{file}: damaged, the rows before it are missing")
        count += len(rows)
        yield file, rows


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
    try:
        tables = [rows for _, rows in _tables(path)]
    except FileNotFoundError:  # a part, which was merged since they were listed
        tables = [rows for _, rows in _tables(path)]
    missing = [name for name in SCHEMA.names for rows in tables if name not in rows.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    table = pa.concat_tables([rows.select(SCHEMA.names).replace_schema_metadata(None) for rows in tables])
    split = np.array(table["split"].to_pylist(), dtype=object)
    column = {name: table[name].to_numpy() for name in ("step", "t", *SUMS)}
    step, t = column["step"], column["t"]
    chain = chain_timesteps(ledger, at_least=int(t.max(initial=1)))
    if not np.isin(t, chain).all():
        raise ValueError(f"t = {t[~np.isin(t, chain)][0]} is not a step of the chain in the ledger")
    measured: dict[str, dict[int, StepTable]] = {}
    for rows in _blocks(step, split, t):
        sums = {name: _on_chain(chain, t[rows], column[name][rows]) for name in SUMS}
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
