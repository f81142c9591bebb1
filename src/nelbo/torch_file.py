"""Files of ``torch.save`` with a checksum of their content, and the one function that reads such files.

``save`` appends the SHA-256 of the file to it, as the comment at the end of a ZIP archive: the file stays one
that ``torch.load`` reads. ``load`` compares the content with it before anything is unpickled. A file without
this comment (written by another program) is checked by the CRC-32 of each of its
records, which does not cover the archive's own structure.
"""

import hashlib
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nelbo.atomic_file import DamagedFileError, MissingFileError, open_regular

PREFIX = b"nelbo sha256 "
COMMENT_SIZE = len(PREFIX) + 64
END_RECORD = 22  # bytes of a ZIP archive's last record; the last two are the length of the comment
CHUNK = 2**20
MAX_SHARED = 4  # times the size of a file: of its tensors together, which may share memory
BROKEN = "cannot be read as a checkpoint: is it whole?"


def save(content: Any, path: Path) -> None:
    """Write a file with its checksum, and wait until it is on the disk.

    Args:
        content: anything that ``torch.save`` takes.
        path: of the file, which is overwritten in place.

    Raises:
        OSError: when the file cannot be written.
    """
    with path.open("w+b") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(content, hashed)  # pyright: ignore[reportArgumentType]
        except RuntimeError as error:
            # when a write fails, torch still tries to end the file, and reports that failure alone
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.seek(-END_RECORD, os.SEEK_END)
        end = file.read()
        if end.startswith(b"PK\5\6") and end.endswith(b"\0\0"):  # no comment yet
            file.seek(-2, os.SEEK_END)
            file.write(struct.pack("<H", COMMENT_SIZE) + PREFIX + hashed.sha256.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, mmap: bool = False) -> Any:
    """The verified content of a file of ``torch.save``: tensors, on the CPU, and plain values.

    Args:
        path: of the file.
        mmap: map the file into memory; the tensors are then read when they are used.

    Raises:
        MissingFileError: naming the file, when it is missing.
        DamagedFileError: naming the file, when it is not a regular file, damaged, not written by
            ``torch.save``, contains code or a tensor that is not plain, or unpacks to more than its own size.
        PermissionError: when the file may not be read.
    """
    try:
        with open_regular(path) as file:
            verify(file, path)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of unusual pickles before it refuses them
                source = path if mmap else file
                content = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap or None)
            _check_tensors(content, MAX_SHARED * file.seek(0, os.SEEK_END) + CHUNK, path)
            return content
    except (DamagedFileError, PermissionError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"there is no checkpoint file {path}") from error
    except pickle.UnpicklingError as error:
        raise DamagedFileError(
            f"{path} is not a checkpoint, or one with code in it, and is not loaded"
        ) from error
    except Exception as error:  # bytes that are no pickle can raise anything
        raise DamagedFileError(f"{path} {BROKEN}") from error


def verify(file: BinaryIO, path: Path) -> None:
    """Compare a file with its checksum, or else its records with theirs. Reads all of the file.

    Args:
        file: opened for reading.
        path: of the file, for messages.

    Raises:
        DamagedFileError: naming the file, when they differ, or when its records are compressed.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - COMMENT_SIZE - 2, 0))
    end = file.read()
    has_checksum = PREFIX in end
    if has_checksum:
        expected = struct.pack("<H", COMMENT_SIZE) + PREFIX + _sha256(file, size - len(end)).encode()
        if end != expected:
            raise DamagedFileError(f"{path} is damaged: its content does not match its checksum")
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        return  # not an archive: torch says what it is
    damaged = f"{path} {BROKEN}"
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise DamagedFileError(f"{path} is compressed, which torch.save never does: it is not loaded")
            if sum(record.file_size for record in records) > size:
                raise DamagedFileError(f"{path} would unpack to more than its own size: it is not loaded")
            if not has_checksum and archive.testzip() is not None:
                raise DamagedFileError(damaged)
    except DamagedFileError:
        raise
    except Exception as error:  # damaged structure can raise anything
        raise DamagedFileError(damaged) from error


def _check_tensors(content: Any, most: int, path: Path) -> None:
    """Check that all tensors are dense and within their memory, which torch does not check.

    Sparse tensors can have indices outside of their shape, and overlapping ones fewer values than elements.
    Both can make torch read and write other memory.

    Args:
        content: of the file.
        most: bytes of all tensors together.
        path: of the file, for messages.

    Raises:
        DamagedFileError: naming the file.
    """
    waiting, seen, total = [content], set[int](), 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            is_plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided
            if not is_plain or value.is_quantized or value.device.type != "cpu":
                raise DamagedFileError(
                    f"{path} contains a tensor that is not plain and dense: it is not loaded"
                )
            end = (value.storage_offset() + value.numel()) * value.element_size()
            total += value.nbytes
            if end > value.untyped_storage().nbytes() or total > most:
                raise DamagedFileError(
                    f"{path} has tensors that are larger than their content: it is not loaded"
                )
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))  # a list may contain itself
            waiting += value.values() if isinstance(value, dict) else value


def _sha256(file: BinaryIO, size: int) -> str:
    """Of the first ``size`` bytes and a comment length of 0: of the file as torch wrote it."""
    file.seek(0)
    sha256 = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, CHUNK))):
        sha256.update(chunk)
        size -= len(chunk)
    sha256.update(b"\0\0")
    return sha256.hexdigest()


class _HashedFile:
    """A file that is hashed while it is written; torch writes it from start to end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()
