"""Parquet files with a checksum of their content, and the function that reads such files."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nelbo.atomic_file import DamagedFileError, open_regular, replacing

CHECKSUM = b"nelbo.sha256"  # in the metadata of the schema


def write(path: Path, rows: pa.Table) -> None:
    """Replace a file by this table.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    rows = rows.replace_schema_metadata({CHECKSUM: checksum(rows)})
    with replacing(path) as unfinished, unfinished.open("wb") as file:  # pyarrow takes UTF-8 paths alone
        pq.write_table(rows, file, compression="zstd")


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
            rows = pq.read_table(file)
            expected = (rows.schema.metadata or {}).get(CHECKSUM)
            is_whole = not verified or expected is None or expected.decode() == checksum(rows)
        except Exception as error:  # damaged bytes can raise anything
            raise DamagedFileError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not is_whole:
        raise DamagedFileError(f"{path}: damaged or edited, its content does not match its checksum")
    return rows


def checksum(rows: pa.Table) -> str:
    """SHA-256 of names and values; null and NaN are the same."""
    sha256 = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name]
        is_text = pa.types.is_string(column.type)
        data = "\0".join(column.to_pylist()).encode() if is_text else column.to_numpy().tobytes()
        sha256.update(f"{name} {column.type} {len(data)}\n".encode() + data)
    return sha256.hexdigest()
