"""bound.parquet: L_t against t, one row per (step, split, t), in nats.

Columns: ``step`` (optimizer steps so far), ``split`` (``train`` rows come from the training batches since
the rows before them, ``val`` rows from one validation), ``t``, ``sum``, ``sum_of_squares``, ``count``. The
mean of L_t is sum / count; rows of several steps may be added. The row with the smallest t is L_0.
``sum_of_errors`` adds up the mean squared error of x0_hat per dimension, in the units of the data, and
``sum_of_fractions`` where between its limits a learned variance lies; training batches measure neither.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from nelbo.atomic_file import DamagedFileError
from nelbo.evaluation.accumulator import StepTable
from nelbo.runs import parquet_file

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


def append(path: Path, step: int, split: str, timesteps: Tensor, table: StepTable) -> None:
    """Add the drawn steps of a table to the file; a reader sees the file before or after, never between.

    Args:
        path: the parquet file, made when it is missing.
        step: optimizer steps so far.
        split: ``train``, ``val`` or ``test``.
        timesteps: (K,) t of each step of the chain.
        table: sums of each step.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    drawn = table.count > 0
    rows = int(drawn.sum())
    new = pa.table(
        {
            "step": [step] * rows,
            "split": [split] * rows,
            "t": timesteps[drawn].numpy(),
            "sum": table.sum[drawn].numpy(),
            "sum_of_squares": table.sum_of_squares[drawn].numpy(),
            "count": table.count[drawn].long().numpy(),
            "sum_of_errors": _rows(table.sum_of_errors, drawn),
            "sum_of_fractions": _rows(table.sum_of_interpolations, drawn),
        },
        schema=SCHEMA,
    )
    old = [_read(path)] if path.exists() else []
    parquet_file.write(path, pa.concat_tables([*old, new]))


def _rows(sums: Tensor | None, drawn: Tensor) -> pa.Array:
    if sums is None:
        return pa.nulls(int(drawn.sum()), pa.float64())
    return pa.array(sums[drawn].numpy(), from_pandas=True)  # NaN becomes null


def describe(path: Path) -> dict[str, Any]:
    """Number of rows and their checksum, to be compared when a run is resumed."""
    if not path.exists():
        return {"rows": 0, "sha256": None}
    with path.open("rb") as file:
        metadata = pq.read_metadata(file)
    expected = (metadata.metadata or {}).get(parquet_file.CHECKSUM)  # older files have none
    checksum = parquet_file.checksum(_read(path)) if expected is None else expected.decode()
    return {"rows": metadata.num_rows, "sha256": checksum}


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
        kept = _read(path, verified=False).slice(0, rows)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path}: it is missing") from error
    if len(kept) != rows or parquet_file.checksum(kept) != sha256:
        raise DamagedFileError(f"{path}: damaged, its rows are not those that were written")
    parquet_file.write(path, kept)


def _read(path: Path, verified: bool = True) -> pa.Table:
    rows = parquet_file.read(path, verified)
    try:
        columns = [
            rows[field.name].cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(len(rows), field.type)  # older files lack a few
            for field in SCHEMA
        ]
    except pa.ArrowException as error:
        raise DamagedFileError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    return pa.table(columns, schema=SCHEMA)


def rewind(path: Path, trained: int, validated: int) -> None:
    """The same for checkpoints of earlier versions, which do not say how many rows there were.

    Args:
        path: the parquet file; nothing happens when it is missing.
        trained: optimizer steps of the checkpoint.
        validated: optimizer steps at the last validation before it.

    Raises:
        DamagedFileError: naming the file, when it is damaged.
        OSError: naming the file, if it cannot be written.
    """
    if not path.exists():
        return
    rows = _read(path)
    split, step = (rows[name].to_numpy() for name in ("split", "step"))
    stays = ((split == "train") & (step <= trained)) | ((split == "val") & (step <= validated))
    parquet_file.write(path, rows.filter(pa.array(stays)))
