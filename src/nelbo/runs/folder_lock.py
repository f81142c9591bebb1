"""A lock on a folder: one process at a time writes into it, and the next one learns which process that is.

The lock is the kernel's lock of the file ``.lock``. It ends with its process, whatever ends that, so there
are no stale locks. ``.lock.json`` describes the process that holds it.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nelbo.atomic_file import read_bytes, unfinished_files, write_json

LOCK, HOLDER = ".lock", ".lock.json"
MAX_HOLDER_BYTES = 2**16
SECONDS_TO_END = 20.0  # for the data workers of a killed process, which can have inherited its lock


class FolderInUseError(ValueError):
    """Another process writes into the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and remove the unfinished files of processes that were killed in it.

    Args:
        folder: that exists.

    Raises:
        FolderInUseError: when another process holds the lock. Nothing in the folder has changed then.
        OSError: when the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    _acquire(lock, folder)
    try:
        for path, pid in unfinished_files(folder):
            if not _is_alive(pid):
                path.unlink(missing_ok=True)
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": Path(sys.argv[0]).name,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(folder / HOLDER, holder)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        if [path.name for path in folder.iterdir()] == [LOCK]:  # nothing was written
            (folder / LOCK).unlink()
        lock.release()


def check_not_in_use(folder: Path) -> None:
    """Check that no other process holds the lock of a folder, and change nothing.

    Raises:
        FolderInUseError: naming the process that holds it.
    """
    if (folder / LOCK).exists():
        lock = FileLock(folder / LOCK)
        _acquire(lock, folder)
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0 if _holder_is_alive(folder) else SECONDS_TO_END)
    except Timeout:
        raise FolderInUseError(
            f"{folder} is in use by {_holder_name(folder)}: wait until that process has ended, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise OSError(
            f"{folder / LOCK}: the folder cannot be locked ({error.strerror or error}); if this file is a "
            "link, remove it"
        ) from error


def _holder(folder: Path) -> dict[str, object]:
    try:
        content = json.loads(read_bytes(folder / HOLDER, MAX_HOLDER_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _holder_name(folder: Path) -> str:
    holder = _holder(folder)
    if not holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']} ({holder['command']}, since {holder['since']})"


def _holder_is_alive(folder: Path) -> bool:
    """Whether the process may be alive; unknown where it is on another host."""
    holder = _holder(folder)
    return holder.get("host") != socket.gethostname() or _is_alive(holder.get("pid"))


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
