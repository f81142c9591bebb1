"""likelihoods.parquet: -log p of every example by each likelihood besides the bound, nats.

One row per example of the split, in the order of the data set, and one column for each likelihood, with its
name in ``evaluation.json``.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from nelbo.runs import parquet_file

FILE_NAME = "likelihoods.parquet"


def write(path: Path, columns: Mapping[str, Tensor]) -> None:
    """Write the file atomically.

    Args:
        path: of the file.
        columns: (N,) nats each, on the CPU.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    parquet_file.write(path, pa.table({name: column.numpy() for name, column in columns.items()}))


def read(path: Path) -> dict[str, Tensor]:
    """The columns, (N,) each.

    Raises:
        DamagedFileError: naming the file, when it is damaged.
    """
    table = parquet_file.read(path)
    # from_numpy would refuse an array that may not be written to
    return {name: torch.tensor(table[name].to_numpy()) for name in table.column_names}
