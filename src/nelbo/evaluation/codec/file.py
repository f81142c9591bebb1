"""The file of coded data.

    8 bytes    magic and version
    header     JSON, a raw DEFLATE stream (RFC 1951) with a preset dictionary
    words      coded data, 32-bit words, little endian
    8 bytes    the first ones of the SHA-256 of all of the above

The header has what a decoder needs besides the model, and what it compares: hashes of the model, and the
software that determines the rounding of the network.
"""

import hashlib
import platform
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, read_bytes, replacing
from nelbo.option_types import NonNegativeInt, PositiveFloat, PositiveInt
from nelbo.text import printable

MAGIC = b"nelbo\r\n\x02"
# text that the compression of a header refers to: part of the format
DICTIONARY = (
    b'{"model":{"weights":"","denoiser":"","variance":"","decoder":"","levels":"","data":""},"weights":"raw","ema",'
    b'"clip":true,false,"software":{"torch":"2.13.0+cpu","constriction":"0.5.0","processor":"x86_64, AVX512, '
    b'AVX2"},"count":,"bin_width":null,"label":[null,"gaps":[1,1,2,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,'
    b'19,20,21,22,23,24,25,26,27,28,29,30],"batch_size":32,"threads":1,"initial_words":,"content":""}'
)
DIGEST_BYTES = 8
CONTENT_DIGITS = 32  # hexadecimal, of the SHA-256 of the examples
MAX_BYTES = 2**30
MAX_HEADER_BYTES = 2**26
MOST_SHOWN = 200  # characters of a file in a message
MOST_EXAMPLES = 2**40
MOST_STEPS = 2**24
MOST_AT_ONCE = 1024  # batch size and threads that a file can ask for


@dataclass(frozen=True)
class Header:
    """What a decoder needs to know.

    Attributes:
        model: hashes of the weights, and of the other choices that determine the code.
        weights: ``ema`` or ``raw``.
        clip: whether x0_hat is clamped to the range of the data.
        software: versions and processor features that determine the rounding of the network.
        count: number of examples.
        bin_width: of continuous data; None for quantised data.
        label: class of each example; None for an unconditional model.
        gaps: differences of the timesteps of the chain, the first one from 0.
        batch_size: most examples in a batch of the network.
        threads: of torch.
        initial_words: number of words that are initial bits.
        content: of :func:`content_hash`.
    """

    model: dict[str, str]
    weights: str
    clip: bool
    software: dict[str, str]
    count: Annotated[int, Ge(1), Le(MOST_EXAMPLES)]
    bin_width: PositiveFloat | None
    label: list[NonNegativeInt] | None
    gaps: Annotated[list[Annotated[int, Ge(0), Le(MOST_STEPS)]], MinLen(1), MaxLen(MOST_STEPS)]
    batch_size: Annotated[int, Ge(1), Le(MOST_AT_ONCE)]
    threads: Annotated[int, Ge(1), Le(MOST_AT_ONCE)]
    initial_words: PositiveInt
    content: str

    @property
    def timesteps(self) -> list[int]:
        """Timesteps of the chain, see :func:`nelbo.compose.codec.build_codec`."""
        return list(accumulate(self.gaps))

    def check_software(self, path: Path) -> None:
        """Compare with the software of this process.

        Raises:
            ValueError: naming the file and the first difference.
        """
        for name, value in software().items():
            if self.software.get(name) != value:
                stored = printable(self.software.get(name))[:MOST_SHOWN]
                raise ValueError(f"{path} was compressed with other software ({name}: {stored}, not {value})")

    def check_model(self, path: Path, model: dict[str, str]) -> None:
        """Compare with a model.

        Args:
            path: of the file.
            model: hashes by name.

        Raises:
            ValueError: naming the file and the first difference.
        """
        for name, value in model.items():
            if self.model.get(name) != value:
                raise ValueError(f"{path} was compressed with another model (different {name})")

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
    content = MAGIC + deflate(_ADAPTER.dump_json(header)) + words.astype("<u4").tobytes()
    content += hashlib.sha256(content).digest()[:DIGEST_BYTES]
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
    if hashlib.sha256(body).digest()[:DIGEST_BYTES] != digest:
        raise DamagedFileError(f"{path} is damaged: it is truncated or altered")
    try:
        text, words = inflate(body[len(MAGIC) :])
        header = _ADAPTER.validate_json(text, strict=True)
    except zlib.error as error:
        raise DamagedFileError(f"{path} is damaged: its header cannot be read") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{path} is damaged ({where}: {first['msg']})") from error
    if header.label is not None and len(header.label) != header.count:
        raise DamagedFileError(f"{path} is damaged: it has {len(header.label)} classes for {header.count}")
    if len(words) % 4:
        raise DamagedFileError(f"{path} is damaged: its code is not whole words")
    return header, np.frombuffer(words, dtype="<u4").astype(np.uint32)


def deflate(text: bytes) -> bytes:
    """Compress the text of a header."""
    stream = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    return stream.compress(text) + stream.flush()


def inflate(content: bytes) -> tuple[bytes, bytes]:
    """The text of a header, and the bytes after it.

    Raises:
        zlib.error: for another stream, or a longer header than :func:`write` makes.
    """
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    text = stream.decompress(content, MAX_HEADER_BYTES)
    if not stream.eof:
        raise zlib.error("the stream has no end")
    return text, stream.unused_data


def software() -> dict[str, str]:
    """Versions and processor features that determine the rounding of the network."""
    return {
        "torch": torch.__version__,
        "constriction": version("constriction"),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def content_hash(examples: Tensor) -> str:
    """The first 128 bits of the SHA-256 of examples (N, *shape) as they are stored, in hexadecimal."""
    digest = hashlib.sha256(np.ascontiguousarray(examples.numpy()).tobytes())
    return digest.hexdigest()[:CONTENT_DIGITS]
