"""``metrics.csv``: every scalar against step. A resumed run appends to it."""

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nelbo.atomic_file import DamagedFileError, open_regular, read_bytes, replacing

METRICS_FILE = "metrics.csv"
STEP = "step"  # optimizer steps that are completed
EPOCH = "epoch"
MAX_BYTES = 2**30
NO_ROWS = ""  # their checksum


@dataclass(frozen=True)
class Series:
    """A metric against step."""

    steps: np.ndarray
    values: np.ndarray


def read(path: Path) -> dict[str, Series]:
    """Read the columns of the file. Of several values at one step the last one counts."""
    columns: dict[str, dict[int, float]] = {}
    for row in _rows(path):
        step = int(row.pop(STEP))
        for name, cell in row.items():
            if cell:
                columns.setdefault(name, {})[step] = float(cell)
    return {
        name: Series(
            np.array(sorted(column), dtype=np.int64), np.array([column[step] for step in sorted(column)])
        )
        for name, column in columns.items()
        if name != EPOCH
    }


class MetricsFile(Logger):
    """Writes a row for each call, at once; columns are in alphabetical order.

    Args:
        path: of the file. Rows that are there stay.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] | None = None
        self._count, self._sha256 = 0, NO_ROWS

    @property
    def name(self) -> str:
        """Nothing, for it adds no folder."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, for it adds no folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``.hydra/config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row.

        Raises:
            OSError: if the file cannot be written.
        """
        values = {**metrics, STEP: step}
        if EPOCH in values:  # Lightning logs every metric as a float
            values[EPOCH] = int(values[EPOCH])
        row = {name: str(value) for name, value in values.items() if value is not None}
        columns = self._read()
        if row.keys() <= set(columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns).writerow(row)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._columns = sorted({*columns, *row})
            _write(self.path, self._columns, [*_rows(self.path), row])
        self._count, self._sha256 = self._count + 1, _extend(self._sha256, row)

    def describe(self) -> dict[str, Any]:
        """Number of rows and their checksum, to be compared when a run is resumed."""
        self._read()
        return {"rows": self._count, "sha256": self._sha256}

    def _read(self) -> list[str]:
        """The columns. The first time, those of the file, whose rows are counted."""
        if self._columns is None:
            rows = _rows(self.path)
            self._columns, self._count, self._sha256 = column_names(self.path), len(rows), _checksum(rows)
        return self._columns


def column_names(path: Path) -> list[str]:
    """Names of the columns; none if there is no file."""
    if not path.exists():
        return []
    with open_regular(path) as binary, TextIOWrapper(binary, encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def restore(path: Path, rows: int, sha256: str) -> None:
    """Keep the rows that were there when :meth:`MetricsFile.describe` was called, and drop those after them.

    Args:
        path: the file.
        rows: their number.
        sha256: their checksum, which depends neither on the order of the columns nor on empty ones.

    Raises:
        DamagedFileError: naming the file, when it is missing or these rows are not what they were.
        OSError: if the file cannot be written.
    """
    if rows == 0:
        path.unlink(missing_ok=True)
        return
    if not path.exists():
        raise DamagedFileError(f"{path}: it is missing")
    kept = _rows(path)[:rows]
    if len(kept) != rows or _checksum(kept) != sha256:
        raise DamagedFileError(f"{path}: damaged, its rows are not those that were written")
    _write(path, column_names(path), kept)


def last_step(path: Path) -> int:
    """The largest step in the file; -1 where there is none.

    Raises:
        DamagedFileError: naming the file, when it cannot be read.
    """
    steps = (row.get(STEP) or "" for row in _rows(path))
    return max((int(step) for step in steps if step.isdecimal()), default=-1)


def _rows(path: Path) -> list[dict[str, str]]:
    """Every row, without a last one that was cut off."""
    if not path.exists():
        return []
    try:
        whole, _, _ = read_bytes(path, MAX_BYTES).rpartition(b"\n")
        rows = list(csv.DictReader(StringIO(whole.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedFileError(f"{path}: cannot be read ({error})") from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():  # where DictReader has more or fewer cells than columns
            raise DamagedFileError(f"{path}: damaged, row {number} does not have a cell for each column")
    return rows


def _checksum(rows: list[dict[str, str]]) -> str:
    return reduce(_extend, rows, NO_ROWS)


def _extend(checksum: str, row: Mapping[str, str]) -> str:
    """Checksum of the rows so far and one more."""
    cells = sorted((name, cell) for name, cell in row.items() if cell)
    return hashlib.sha256(json.dumps([checksum, cells]).encode()).hexdigest()


def _write(path: Path, names: list[str], rows: list[Any]) -> None:
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
