"""The file of coded data.

    8 bytes    magic and version
    4 bytes    length of the header, little endian
    header     JSON
    words      coded data, 32-bit words, little endian
    32 bytes   SHA-256 of all of the above

The header has what a decoder needs besides the model, and what it compares: the model, and the software that
determines the rounding of the network.
"""

import hashlib
import platform
import struct
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le, MinLen
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, read_bytes, replacing
from nelbo.option_types import NonNegativeInt, PositiveFloat, PositiveInt
from nelbo.text import printable

MAGIC = b"nelbo\r\n\x01"
PREFIX = struct.Struct("<8sI")
DIGEST_BYTES = 32
MAX_BYTES = 2**30
MOST_SHOWN = 200  # characters of a file in a message
MOST_EXAMPLES = 2**40
MOST_AT_ONCE = 1024  # batch size and threads that a file can ask for


@dataclass(frozen=True)
class Header:
    """What a decoder needs to know.

    Attributes:
        model: a hash of the weights, and the other choices that determine the predictions.
        weights: ``ema`` or ``raw``.
        clip: whether x0_hat is clamped to the range of the data.
        software: versions and processor features that determine the rounding of the network.
        count: number of examples.
        bin_width: of continuous data; None for quantised data.
        label: class of each example; None for an unconditional model.
        timesteps: of the chain; in continuous time u, the levels.
        batch_size: examples in a batch of the network.
        threads: of torch.
        initial_words: number of words that are initial bits.
        content: SHA-256 of the decoded examples, in hexadecimal.
    """

    model: dict[str, str]
    weights: str
    clip: bool
    software: dict[str, str]
    count: Annotated[int, Ge(1), Le(MOST_EXAMPLES)]
    bin_width: PositiveFloat | None
    label: list[NonNegativeInt] | None
    timesteps: Annotated[list[int], MinLen(1)] | Annotated[list[float], MinLen(1)]
    batch_size: Annotated[int, Ge(1), Le(MOST_AT_ONCE)]
    threads: Annotated[int, Ge(1), Le(MOST_AT_ONCE)]
    initial_words: PositiveInt
    content: str

    def check_software(self, path: Path) -> None:
        """Compare with the software of this process.

        Raises:
            ValueError: naming the file and the first difference.
        """
        _compare(self.software, software(), f"{path} was compressed with other software")

    def check_model(self, path: Path, model: dict[str, str]) -> None:
        """Compare with a model.

        Raises:
            ValueError: naming the file and the first difference.
        """
        _compare(self.model, model, f"{path} was compressed with another model")

    def check_content(self, path: Path, decoded: Tensor) -> None:
        """Compare with decoded examples (N, *shape).

        Raises:
            DamagedFileError: naming the file.
        """
        if content_hash(decoded) != self.content:
            raise DamagedFileError(f"{path}: the decoded examples are not those that were compressed")


_ADAPTER = TypeAdapter(Header)


def write(path: Path, header: Header, words: np.ndarray) -> int:
    """Write a file atomically.

    Args:
        path: of the file.
        header: of the data.
        words: (W,) uint32.

    Returns:
        Its size in bytes.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    text = _ADAPTER.dump_json(header)
    content = PREFIX.pack(MAGIC, len(text)) + text + words.astype("<u4").tobytes()
    content += hashlib.sha256(content).digest()
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
    return len(content)


def read(path: Path) -> tuple[Header, np.ndarray]:
    """The header and the words (W,) uint32 of a file.

    Raises:
        DamagedFileError: naming the file, when it is truncated, altered, or of another kind.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    content = read_bytes(path, MAX_BYTES)
    if content[: len(MAGIC)] != MAGIC:
        ours = MAGIC[:-1]
        problem = "of another version of nelbo" if content[: len(ours)] == ours else "not a file of compress"
        raise DamagedFileError(f"{path} is {problem}")
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if len(body) < PREFIX.size or hashlib.sha256(body).digest() != digest:
        raise DamagedFileError(f"{path} is damaged: it is truncated or altered")
    begin = PREFIX.size + PREFIX.unpack_from(body)[1]
    if begin > len(body) or (len(body) - begin) % 4:
        raise DamagedFileError(f"{path} is damaged: its header has another length")
    try:
        header = _ADAPTER.validate_json(body[PREFIX.size : begin], strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{path} is damaged ({where}: {first['msg']})") from error
    if header.label is not None and len(header.label) != header.count:
        raise DamagedFileError(f"{path} is damaged: it has {len(header.label)} classes for {header.count}")
    return header, np.frombuffer(body[begin:], dtype="<u4").astype(np.uint32)


def software() -> dict[str, str]:
    """Versions and processor features that determine the rounding of the network."""
    return {
        "torch": torch.__version__,
        "constriction": version("constriction"),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def _compare(stored: dict[str, str], present: dict[str, str], problem: str) -> None:
    for name, value in present.items():
        if stored.get(name) != value:
            raise ValueError(f"{problem} ({name}: {printable(stored.get(name))[:MOST_SHOWN]}, not {value})")


def content_hash(examples: Tensor) -> str:
    """SHA-256 of examples (N, *shape) as they are stored, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(examples.numpy()).tobytes()).hexdigest()
