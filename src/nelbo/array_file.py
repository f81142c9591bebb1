"""Arrays in an .npz file, with metadata on what they were measured on."""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, check_growth, open_regular, replacing

METADATA = "metadata"


def save(path: Path, arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the file atomically.

    Args:
        path: of the file.
        arrays: by name.
        metadata: what they were measured on.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    content: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
    content[METADATA] = np.array(json.dumps(dict(metadata)))
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **content)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Arrays of any shape (...) by name, and their metadata.

    Args:
        path: of the file.

    Raises:
        DamagedFileError: naming the file, when it is damaged, too large, or another kind of file.
    """
    with opened(path) as file:
        metadata = dict(json.loads(str(file[METADATA])))
        return {name: torch.from_numpy(file[name]) for name in file.files if name != METADATA}, metadata


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An .npz file, open for reading; an error of the block means that it is damaged.

    Args:
        path: of the file.

    Raises:
        DamagedFileError: naming the file, when it is damaged, too large, or another kind of file.
    """
    try:
        with open_regular(path) as stream, np.load(stream) as file:  # which refuses pickled objects
            check_growth(os.fstat(stream.fileno()).st_size, sum(e.file_size for e in file.zip.infolist()))
            yield file
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError) as error:
        raise DamagedFileError(f"{path} is damaged") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DamagedFileError(f"{path} is damaged") from error
