"""bound.parquet: L_t against t, one row per (step, split, t), in nats.

Columns: ``step`` (optimizer steps so far), ``split`` (``train`` rows come from the training batches since
the rows before them, ``val`` rows from one validation), ``t``, ``sum``, ``sum_of_squares``, ``count``. The
mean of L_t is sum / count; rows of several steps may be added. The row with the smallest t is L_0.
``sum_of_errors`` adds up the mean squared error of x0_hat per dimension, in the units of the data, and
``sum_of_fractions`` where between its limits a learned variance lies; training batches measure neither.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from nelbo.atomic_file import replacing
from nelbo.evaluation.tally import StepTable

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
            "sum_of_errors": pa.array(table.sum_of_errors[drawn].numpy(), from_pandas=True),
            "sum_of_fractions": pa.array(table.sum_of_fractions[drawn].numpy(), from_pandas=True),
        },
        schema=SCHEMA,
    )
    old = [pq.read_table(path, schema=SCHEMA)] if path.exists() else []
    _write(path, pa.concat_tables([*old, new]))


def rewind(path: Path, trained: int, validated: int) -> None:
    """Drop the rows that are written again when a run goes on from a checkpoint.

    Args:
        path: the parquet file; nothing happens when it is missing.
        trained: optimizer steps of the checkpoint.
        validated: optimizer steps at the last validation before it.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    if not path.exists():
        return
    rows = pq.read_table(path, schema=SCHEMA)
    split, step = (rows[name].to_numpy() for name in ("split", "step"))
    stays = ((split == "train") & (step <= trained)) | ((split == "val") & (step <= validated))
    _write(path, rows.filter(pa.array(stays)))


def _write(path: Path, rows: pa.Table) -> None:
    with replacing(path) as unfinished:
        pq.write_table(rows, unfinished, compression="zstd")
