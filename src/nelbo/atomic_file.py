"""Files that a reader sees whole or not at all, whatever happens while they are written."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a place beside ``path`` to write to, and move it there when the block ends without an error.

    Args:
        path: of the file. One that is there stays as it is until the new one is whole.
        durable: wait until the disk has the file, so that it outlives a power failure too.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")  # two processes may write the same
    try:
        yield unfinished
        if durable:
            sync(unfinished)
        unfinished.replace(path)
        if durable:
            sync(path.parent)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path} ({error})") from error
        raise


def write_json(path: Path, content: Any) -> None:
    """Replace a file by this content, readable for people. JSON has no NaN: what is not finite is null.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    with replacing(path) as unfinished:
        text = json.dumps(_finite(content), indent=2, allow_nan=False)
        unfinished.write_text(f"{text}\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
