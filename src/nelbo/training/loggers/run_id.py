"""The id of a logger's run in the folder of the run, so that a resumed run continues it."""

import re
from importlib.util import find_spec
from pathlib import Path

from nelbo.atomic_file import read_bytes, replacing

FILE_NAME = "run_id"
PLAIN = re.compile(r"[\w-]{1,128}", re.ASCII)  # names a file or folder in the stores of some loggers


def read_run_id(folder: Path) -> str | None:
    """The id that :func:`write_run_id` wrote; None if there is none.

    Raises:
        ValueError: for a file with another content.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    text = read_bytes(path, 1024).decode("ascii", "replace").strip()
    if not PLAIN.fullmatch(text):
        raise ValueError(f"{path}: not the id of a run; remove the file to start a new one")
    return text


def write_run_id(folder: Path, run_id: str) -> None:
    """Store an id in a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FILE_NAME) as unfinished:
        unfinished.write_text(run_id + "\n", encoding="ascii")


def check_installed(module: str, option: str, package: str) -> None:
    """Check that the package of a logger is installed.

    Raises:
        ImportError: naming the option and the package.
    """
    if find_spec(module) is None:
        raise ImportError(f"{option} needs a package that is not installed: pip install {package}")
