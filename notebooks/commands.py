"""Run the commands of the project from a notebook, in a temporary folder."""

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
    """Run ``python <program> <options>`` in the root of the project, and return its output.

    Raises:
        RuntimeError: if the command fails, with its error message.
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
    """The environment without the colour settings of the kernel."""
    kept = {name: value for name, value in os.environ.items() if name not in COLOURED}
    return kept | {"COLUMNS": "110", "TERM": "dumb"}


def scratch() -> Path:
    """A temporary folder for the runs of one notebook, removed when the kernel exits."""
    folder = tempfile.mkdtemp(prefix="nelbo-notebook-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
