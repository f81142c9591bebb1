"""Arrays in an .npz file, with metadata on what they were measured on."""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo.atomic_file import open_regular, replacing

ABOUT = "about"


def save(path: Path, arrays: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write the file atomically.

    Args:
        path: of the file.
        arrays: by name.
        about: what they were measured on.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    content: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
    content[ABOUT] = np.array(json.dumps(dict(about)))
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **content)


def load(path: Path, most: float = math.inf) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Arrays of any shape (...) by name, and their metadata.

    Args:
        path: of the file.
        most: bytes that it may unpack to, for a file from elsewhere.

    Raises:
        ValueError: naming the file, when it is damaged, too large, or another kind of file.
    """
    try:
        with open_regular(path) as stream, np.load(stream) as file:  # which refuses pickled objects
            unpacked = sum(entry.file_size for entry in file.zip.infolist())
            if unpacked > most:
                raise ValueError(f"it unpacks to {unpacked} bytes, which is more than {most}")
            about = json.loads(str(file[ABOUT]))
            arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != ABOUT}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged") from error
    return arrays, about
