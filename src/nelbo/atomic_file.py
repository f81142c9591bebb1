"""Atomic writes of files, and JSON and yaml files of limited size."""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml

UNFINISHED = re.compile(r".+\.(\d+)\.tmp")  # with the process that writes it
CHECKSUM = "content_sha256"  # in a JSON file: of all else in it
MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64
MAX_YAML_BYTES = 4 * 2**20
MAX_DIGITS = 1000  # in a number of a yaml file
FREE_BYTES, MAX_GROWTH = 64 * 2**20, 100  # that a compressed file unpacks to: these, and times its own size


class DamagedFileError(ValueError):
    """A file that is missing, damaged or of another kind; the message names it."""


class MissingFileError(DamagedFileError, FileNotFoundError):
    """A checkpoint that is missing."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` if the block raises no error.

    Args:
        path: of the file. One that is there stays as it is until the new one is whole.
        durable: wait until the disk has the file, so that it outlives a power failure too.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    unfinished = _unfinished(path)
    try:
        unfinished.touch(exist_ok=False)  # which follows no link
        yield unfinished
        if durable:
            sync(unfinished)
        unfinished.replace(path)
        if durable:
            sync(path.parent)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path} ({error})") from error
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; rename it to ``path`` if the block raises no error.

    Args:
        path: of the folder, which is not there or empty.

    Raises:
        OSError: naming the folder, if it cannot be written.
    """
    unfinished = _unfinished(path)
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.replace(path)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path} ({error})") from error
        raise


def _unfinished(path: Path) -> Path:
    """A temporary name next to ``path``, with the process that writes it.

    Two processes may write the same file, and have the same number on two machines.
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.{os.getpid()}.tmp")


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading. Nothing is waited for, as opening a named pipe would.

    Raises:
        DamagedFileError: for a folder, a pipe, or a device.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFileError(f"{path} is not a regular file")
    return open(descriptor, "rb")  # noqa: PTH123  # Path.open takes no descriptor


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        DamagedFileError: naming the file, when it is not a regular file or is larger.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DamagedFileError(f"{path} is larger than {most / 2**20:g} MiB")
    return data


def check_growth(packed: int, unpacked: int) -> None:
    """Check that a compressed file does not unpack to much more than its own size.

    Raises:
        ValueError: with both sizes, in bytes.
    """
    if unpacked > FREE_BYTES + MAX_GROWTH * packed:
        raise ValueError(f"it would unpack from {packed} bytes to {unpacked} or more")


def unfinished_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Temporary files of :func:`replacing` in a folder and the folders in it, each with its process."""
    for path in (*folder.glob("*.tmp"), *folder.glob("*/*.tmp")):
        if (found := UNFINISHED.fullmatch(path.name)) and path.is_file():
            yield path, int(found[1])


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        DamagedFileError: when it is not a regular file.
        OSError: when it cannot be read; FileNotFoundError when it is not there.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by this content, readable for people, and a checksum of it.

    JSON has no NaN: what is not finite is null.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(to_json(content), encoding="utf-8")


def to_json(content: Mapping[str, Any]) -> str:
    """The text of a JSON file with this content and a checksum of it."""
    plain = json.loads(json.dumps(_finite(content), allow_nan=False))
    return json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=2) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, compared with its checksum if there is one in it.

    Raises:
        DamagedFileError: naming the file, when it is not a regular file, too large, not UTF-8, not JSON,
            nested too deeply, not an object, or does not match its checksum.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    with open_regular(path) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    try:
        content = _parse(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: cannot be read as JSON ({error})") from error
    expected = content.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(content):
        raise DamagedFileError(
            f"{path}: damaged or edited, its content does not match its checksum; if the change is "
            f"intended, remove {CHECKSUM} from it"
        )
    return content


def read_yaml(path: Path) -> Any:
    """The content of a yaml file as plain data.

    Raises:
        DamagedFileError: naming the file, when it is not a regular file, too large, or not yaml.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    data = read_bytes(path, MAX_YAML_BYTES)
    try:
        return _parse_yaml(data.decode("utf-8"))
    except Exception as error:  # damaged content can raise anything
        raise DamagedFileError(
            f"{path}: cannot be read as yaml, it is damaged ({' '.join(str(error).split())})"
        ) from error


def _parse_yaml(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > MAX_YAML_BYTES:  # a few aliases (*name) can stand for gigabytes
            raise ValueError(f"its aliases expand to more than {MAX_YAML_BYTES // 2**20} MiB")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Characters and nodes below a node of yaml, with every alias replaced by what it stands for."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
            raise ValueError(f"a number has more than {MAX_DIGITS} digits")
        return 1 + len(node.value)
    if id(node) not in sizes:
        sizes[id(node)] = MAX_YAML_BYTES + 1  # a node that contains itself is infinite
        is_mapping = isinstance(node, yaml.MappingNode)
        children = (child for pair in node.value for child in pair) if is_mapping else node.value
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES // 2**20} MiB")
    content = json.loads(data.decode("utf-8"))
    if not isinstance(content, dict):
        raise ValueError("expected an object")
    if _is_deeper_than(content, MAX_JSON_DEPTH):
        raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} deep")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_deeper_than(content: Any, limit: int) -> bool:
    level = [content]
    for _ in range(limit):
        groups = (
            value.values() if isinstance(value, dict) else value
            for value in level
            if isinstance(value, dict | list)
        )
        level = [child for group in groups for child in group]
    return bool(level)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
