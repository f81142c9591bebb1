"""The processes of a run, its ranks included: those with its folder in their command line."""

import os
import time
from pathlib import Path


def processes_of(folder: Path) -> list[int]:
    """Process ids of those that are alive."""
    name, alive = str(folder).encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if name in (process / "cmdline").read_bytes() and not is_zombie:
                alive.append(int(process.name))
        except OSError:
            continue
    return alive


def signal_all(folder: Path, number: int) -> None:
    """Send a signal to all of them."""
    for pid in processes_of(folder):
        os.kill(pid, number)


def wait_until_ended(folder: Path, seconds: float = 60.0) -> None:
    """Wait until none of them is left."""
    until = time.monotonic() + seconds
    while processes_of(folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert processes_of(folder) == []
