"""Parquet files with a checksum of their content, and the function that reads such files."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nelbo.atomic_file import DamagedFileError, check_growth, open_regular, replacing

CHECKSUM = b"nelbo.sha256"  # in the metadata of the schema
TYPES = {pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string()}  # of columns
MAX_TEXT = 100  # characters of a value


def write(path: Path, rows: pa.Table, metadata: Mapping[bytes, str] | None = None) -> None:
    """Replace a file by this table.

    Args:
        path: of the file.
        rows: of the table.
        metadata: entries to add to those of the schema.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    rows = rows.replace_schema_metadata({**(metadata or {}), CHECKSUM: checksum(rows)})
    repeated = [field.name for field in rows.schema if not pa.types.is_floating(field.type)]
    with replacing(path) as unfinished, unfinished.open("wb") as file:  # pyarrow takes UTF-8 paths alone
        # the stubs of pyarrow lack lists of columns
        pq.write_table(rows, file, compression="zstd", use_dictionary=repeated)  # pyright: ignore


def read_metadata(path: Path) -> pq.FileMetaData:
    """Number of rows, schema and metadata of a file.

    Raises:
        DamagedFileError: naming the file, when it is damaged or no parquet file.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    with open_regular(path) as file:
        try:
            return pq.read_metadata(file)
        except Exception as error:  # damaged bytes can raise anything
            raise _unreadable(path, error) from error


def read(path: Path, verified: bool = True) -> pa.Table:
    """The table in a file, compared with its checksum if it has one.

    Args:
        path: of the file.
        verified: whether to compare.

    Raises:
        DamagedFileError: naming the file, when it is damaged or no parquet file.
        OSError: when it cannot be opened; FileNotFoundError when it is not there.
    """
    with open_regular(path) as file:
        try:
            rows = _read(file)
            expected = (rows.schema.metadata or {}).get(CHECKSUM)
            is_whole = not verified or expected is None or expected.decode() == checksum(rows)
        except Exception as error:  # damaged bytes can raise anything
            raise _unreadable(path, error) from error
    if not is_whole:
        raise DamagedFileError(f"{path}: damaged or edited, its content does not match its checksum")
    return rows


def _unreadable(path: Path, error: Exception) -> DamagedFileError:
    return DamagedFileError(f"{path}: cannot be read ({' '.join(str(error).split())})")


def _read(file: BinaryIO) -> pa.Table:
    """The table in a file, which may be a few bytes for any number of equal values.

    Raises:
        ValueError: when it is much larger than the file, or has a column of another type than ours.
    """
    metadata = pq.read_metadata(file)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = [group.column(index) for group in groups for index in range(metadata.num_columns)]
    unpacked = sum(8 * chunk.num_values + chunk.total_uncompressed_size for chunk in chunks)
    check_growth(os.fstat(file.fileno()).st_size, unpacked)
    schema = metadata.schema.to_arrow_schema()
    other = [field for field in schema if field.type not in TYPES]
    if other:
        raise ValueError(f"its column {other[0].name} has the type {other[0].type}")
    texts = [field.name for field in schema if field.type == pa.string()]
    rows = pq.read_table(file, read_dictionary=texts)  # a repeated text once
    if any(len(text) > MAX_TEXT for name in texts for text in rows[name].unique().to_pylist() if text):
        raise ValueError(f"it has a text of more than {MAX_TEXT} characters")
    return rows.cast(schema)


def checksum(rows: pa.Table) -> str:
    """SHA-256 of names and values; null and NaN are the same."""
    sha256 = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name]
        data = _joined(column) if pa.types.is_string(column.type) else column.to_numpy().tobytes()
        sha256.update(f"{name} {column.type} {len(data)}\n".encode())
        sha256.update(data)
    return sha256.hexdigest()


def _joined(texts: pa.ChunkedArray) -> pa.Buffer:
    """The texts with a zero byte between them, without an object of Python for each of them."""
    values = texts.combine_chunks()
    rows = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    return pc.call_function("binary_join", [rows, pa.scalar("\0")])[0].as_buffer()
