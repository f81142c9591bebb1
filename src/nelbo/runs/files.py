"""Reading single files of a run: one may be missing, but one that is there must be readable."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import yaml

from nelbo.atomic_file import DamagedFileError

T = TypeVar("T")


class RunFolderError(ValueError):
    """A folder that is no run, or a file of a run that cannot be read; the message names it."""


def read_if_there(path: Path, how: Callable[[Path], T]) -> T | None:
    """What ``how`` makes of the file; None where it is missing.

    Raises:
        RunFolderError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        return None
    try:
        return how(path)
    except DamagedFileError as error:
        raise RunFolderError(str(error)) from error
    except (OSError, ValueError, KeyError, yaml.YAMLError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path}: cannot be read ({reason})") from error
