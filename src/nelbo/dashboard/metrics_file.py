"""``metrics.csv``: every scalar against step, which a run that goes on continues."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nelbo.atomic_file import replacing

METRICS_FILE = "metrics.csv"
STEP = "step"  # counts optimizer steps from 0


class MetricsFile(Logger):
    """Writes a row for each call, at once; columns are in alphabetical order.

    Args:
        path: of the file. Rows that are there stay.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] | None = None

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
        row = {**metrics, STEP: step}
        if self._columns is None:
            self._columns = columns(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if row.keys() <= set(self._columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._columns = sorted({*self._columns, *row})
            _write(self.path, self._columns, [*_rows(self.path), row])


def columns(path: Path) -> list[str]:
    """Names of the columns; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def rewind(path: Path, step: int) -> None:
    """Drop the rows that are written again when a run goes on from a checkpoint.

    Args:
        path: the file; nothing happens when it is missing.
        step: optimizer steps of the checkpoint.

    Raises:
        OSError: if the file cannot be written.
    """
    if path.exists():
        _write(path, columns(path), [row for row in _rows(path) if _is_before(row, step)])


def _is_before(row: dict[str, str], step: int) -> bool:
    number = row.get(STEP) or ""
    return number.isdecimal() and int(number) < step  # the last row may be cut off


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, names: list[str], rows: list[Any]) -> None:
    with replacing(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
