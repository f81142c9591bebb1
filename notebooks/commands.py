"""The commands of the project, run from a notebook in a folder that is thrown away."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT = 600  # seconds
COLOURED = ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR")


def run(program: str, *options: str) -> str:
    """``python <program> <options>`` in the project's folder; what it printed.

    Raises:
        RuntimeError: when it fails, with what it said.
    """
    ended = subprocess.run(
        [sys.executable, *program.split(), *options],
        cwd=ROOT,
        env=plain_terminal(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(options)}: {ended.stderr.strip()}")
    return ended.stdout


def plain_terminal() -> dict[str, str]:
    """The environment, without what a notebook's kernel says of colours."""
    kept = {name: value for name, value in os.environ.items() if name not in COLOURED}
    return kept | {"COLUMNS": "110", "TERM": "dumb"}


def scratch() -> Path:
    """A new folder outside of the project, for the runs of one notebook; it goes with its kernel."""
    folder = tempfile.mkdtemp(prefix="nelbo-notebook-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
