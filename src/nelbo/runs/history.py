"""The files that a run adds rows to, as they were at a checkpoint.

A checkpoint has the number of rows of each file and a checksum of them. When a run is resumed, these rows are
compared and those after them are dropped. A file that is missing or damaged does not stop a training: it is
set aside under another name, and a new one begins.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn

from nelbo.atomic_file import DamagedFileError
from nelbo.runs import bound_table as table
from nelbo.runs import metrics_file
from nelbo.runs.metrics_file import MetricsFile

HISTORY = "history"  # in a checkpoint
BOUND = table.FILE_NAME


def describe(run_dir: Path, loggers: Sequence[Logger] = ()) -> dict[str, dict[str, Any]]:
    """Number and checksum of the rows of each file, for a checkpoint.

    Args:
        run_dir: the run's folder.
        loggers: of the run; one that writes ``metrics.csv`` knows its rows, otherwise the file is read.
    """
    writers = (logger for logger in loggers if isinstance(logger, MetricsFile))
    metrics = next(writers, MetricsFile(run_dir / metrics_file.METRICS_FILE))
    return {
        metrics_file.METRICS_FILE: metrics.describe(),
        BOUND: table.describe(run_dir / BOUND),
    }


def check(history: Any, checkpoint: Path) -> None:
    """Check the entry of a checkpoint that :func:`describe` made.

    Raises:
        DamagedFileError: naming the checkpoint, when it is of another form.
    """
    for name in (metrics_file.METRICS_FILE, BOUND):
        if not isinstance(history, dict) or not _is_description(history.get(name)):
            raise DamagedFileError(f"{checkpoint}: damaged, its {HISTORY} does not describe {name}")


def _is_description(entry: Any) -> bool:
    match entry:
        case {"rows": int(), "sha256": str() | None, **rest}:
            return not rest
    return False


def restore(run_dir: Path, checkpoint: dict[str, Any] | None) -> None:
    """Make the files what they were at a checkpoint; one that cannot be restored is set aside, and named.

    Args:
        run_dir: the run's folder.
        checkpoint: its content; None to begin again.

    Raises:
        OSError: for a file that cannot be written.
    """
    metrics, bound = run_dir / metrics_file.METRICS_FILE, run_dir / BOUND
    if checkpoint is None:
        metrics.unlink(missing_ok=True)
        table.restore(bound, 0, None)
        return
    kept, step = checkpoint[HISTORY], checkpoint["global_step"]
    for path, restore_rows in ((metrics, metrics_file.restore), (bound, table.restore)):
        try:
            restore_rows(path, **kept[path.name])
        except DamagedFileError as error:
            rank_zero_warn(f"{error}; {_set_aside(path)}a new {path.name} begins at step {step}")


def _set_aside(path: Path) -> str:
    parts = table.parts_folder(path)
    names = (f"damaged{number or ''}" for number in count())
    free = next(
        name for name in names if not any(at.with_name(f"{at.name}.{name}").exists() for at in (path, parts))
    )
    there = [at for at in (path, parts) if at.exists()]
    for at in there:
        at.replace(at.with_name(f"{at.name}.{free}"))
    return f"it is kept as {path.name}.{free}, and " if path in there else ""
