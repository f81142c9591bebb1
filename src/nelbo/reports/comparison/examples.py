"""examples.parquet, read: the bound of every example, so that two runs are compared example by example."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nelbo.runs import parquet_file
from nelbo.runs.example_table import FILE_NAME
from nelbo.runs.files import RunFolderError, read_if_there
from nelbo.runs.run_folder import Run

ENDS = ("L_0", "L_T")
DECADE = re.compile("t_[0-9]{1,9}_[0-9]{1,9}")


@dataclass(frozen=True)
class Examples:
    """The bound of N examples in the order of their data set, nats.

    Attributes:
        columns: (N,) each: ``L_0``, the t_bins of t clean to noisy (``t_2_10``, ...), ``L_T``.
    """

    columns: Mapping[str, Tensor]

    def part(self, name: str) -> Tensor:
        """A column, or the sum of several: ``L_t`` and ``total``; (N,).

        A decade that the chain does not reach has nothing in it.
        """
        zero = torch.zeros_like(self.columns["L_0"])
        if name == "total":
            return sum(self.columns.values(), zero)
        if name == "L_t":
            return sum((self.columns[decade] for decade in t_bins(self.columns)), zero)
        return self.columns.get(name, zero)


def t_bins(names: Iterable[str]) -> list[str]:
    """The t_bins of t among names of columns, from clean to noisy."""
    found = {name for name in names if DECADE.fullmatch(name)}
    return sorted(found, key=lambda name: int(name.split("_")[1]))


def read_examples(run: Run) -> Examples | None:
    """The examples of a run; None where it has none, as older runs.

    Raises:
        RunFolderError: when the file is broken, or has not as many examples as the ledger.
    """
    path = run.path / FILE_NAME
    examples = read_if_there(path, _columns)
    if examples is None:
        return None
    n, expected = len(examples.columns["L_0"]), run.ledger.get("num_examples")
    if expected is not None and n != expected:
        raise RunFolderError(f"{path}: it has {n} examples, and the ledger {expected}")
    return examples


def _columns(path: Path) -> Examples:
    table = parquet_file.read(path)
    missing = [name for name in ENDS if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    # from_numpy would refuse an array that may not be written to
    return Examples({name: torch.tensor(table[name].to_numpy()) for name in table.column_names})
