"""examples.parquet: the bound of every example, so that two models are compared example by example.

One row per example of the split, in the order of the data set, nats: ``L_0``, the sums of L_t by decade of t
(``t_2_10``, ``t_11_100``, ...), ``L_T``. A row adds up to the example's bound.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from nelbo.runs import parquet_file

FILE_NAME = "examples.parquet"


def write(path: Path, columns: Sequence[str], values: Tensor) -> None:
    """Write the file; a reader sees it whole or not at all.

    Args:
        path: of the file.
        columns: names of the parts.
        values: (N, columns) nats, on the CPU.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    table = pa.table({name: column.numpy() for name, column in zip(columns, values.T, strict=True)})
    parquet_file.write(path, table)
