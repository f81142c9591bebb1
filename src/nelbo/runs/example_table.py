"""examples.parquet: the bound of every example, so that two models are compared example by example.

One row per example of the split, in the order of the data set, nats: ``L_0``, the sums of L_t by decade of t
(``t_2_10``, ``t_11_100``, ...) or, in continuous time, fifths of u (``u_0.0_0.2``, ...), ``L_T``. A row
adds up to the example's bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from nelbo.evaluation.t_bins import T_BIN
from nelbo.runs import parquet_file

FILE_NAME = "examples.parquet"
ENDS = ("L_0", "L_T")


@dataclass(frozen=True)
class Examples:
    """The bound of N examples in the order of their data set, nats.

    Attributes:
        columns: (N,) each: ``L_0``, the sums over bins of t from clean to noisy (``t_2_10``, ...), ``L_T``.
    """

    columns: Mapping[str, Tensor]

    def part(self, name: str) -> Tensor:
        """A column, or the sum of several: ``L_t`` and ``total``; (N,).

        A bin that the chain does not reach is 0.
        """
        zero = torch.zeros_like(self.columns["L_0"])
        if name == "total":
            return sum(self.columns.values(), zero)
        if name == "L_t":
            return sum((self.columns[name] for name in t_bin_columns(self.columns)), zero)
        return self.columns.get(name, zero)


def t_bin_columns(names: Iterable[str]) -> list[str]:
    """The names of bins of t or u among the names of columns, from clean to noisy."""
    found = {name for name in names if T_BIN.fullmatch(name)}
    return sorted(found, key=lambda name: (name[0], float(name.split("_")[1])))


def common_bins(first: Iterable[str], other: Iterable[str]) -> list[str]:
    """The bins of two tables; none where one has bins of t and the other bins of u."""
    found = t_bin_columns({*first, *other})
    return found if len({name[0] for name in found}) == 1 else []


def write(path: Path, columns: Sequence[str], values: Tensor) -> None:
    """Write the file atomically.

    Args:
        path: of the file.
        columns: names of the parts.
        values: (N, columns) nats, on the CPU.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    table = pa.table({name: column.numpy() for name, column in zip(columns, values.T, strict=True)})
    parquet_file.write(path, table)


def read(path: Path) -> Examples:
    """Read the file.

    Raises:
        DamagedFileError: naming the file, when it is damaged.
        ValueError: for a table that lacks a column.
    """
    table = parquet_file.read(path)
    missing = [name for name in ENDS if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    # from_numpy would refuse an array that may not be written to
    return Examples({name: torch.tensor(table[name].to_numpy()) for name in table.column_names})
