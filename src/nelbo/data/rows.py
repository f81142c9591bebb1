"""Rows of a column of a data set: of the library ``datasets``, or read from parquet files."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import datasets
    import pyarrow.parquet as pq


class Rows(ABC):
    """The rows of one split.

    Attributes:
        is_image: whether the column has encoded images.
        dtype: of the values of its arrays.
    """

    is_image: bool
    dtype: np.dtype

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: list[int]) -> list[Any] | np.ndarray:
        """Values of the column: bytes of images, or arrays."""

    @abstractmethod
    def labels(self, column: str) -> np.ndarray:
        """All values of a column of labels, (N,)."""

    @abstractmethod
    def class_names(self, column: str | None) -> tuple[str, ...] | None:
        """Names of the classes of a column of labels; None if they have none."""

    @abstractmethod
    def content(self, rows: list[int]) -> bytes:
        """Bytes that identify rows."""

    def block_sizes(self, rows: Tensor) -> list[int] | None:
        """Numbers of consecutive ``rows`` (n,) that are read together; None for random access."""
        return None


class DatasetRows(Rows):
    """Rows of a memory-mapped data set.

    Args:
        dataset: the split.
        column: of the examples.
        label: column of the labels, or None.

    Raises:
        ValueError: for columns that are missing, or of another type.
    """

    def __init__(self, dataset: "datasets.Dataset", column: str, label: str | None) -> None:
        import datasets as library

        features = dataset.features
        self.is_image, self.dtype = describe(features, column, label)
        self._labels = None if label is None else dataset.select_columns([label])
        chosen = dataset.select_columns([column])
        if self.is_image:
            self._column = chosen.cast_column(column, library.Image(decode=False))
        else:
            self._column = chosen.with_format("numpy", dtype=self.dtype)
        self._name = column

    def __len__(self) -> int:
        return len(self._column)

    def read(self, rows: list[int]) -> list[Any] | np.ndarray:
        """Values of the column: bytes of images, or arrays."""
        values = self._column[rows][self._name]
        return [value and value["bytes"] for value in values] if self.is_image else values

    def labels(self, column: str) -> np.ndarray:
        """All values of the column of labels, (N,)."""
        assert self._labels is not None
        table: Any = self._labels.with_format("arrow")[:]
        return _label_values(table.column(column), column)

    def class_names(self, column: str | None) -> tuple[str, ...] | None:
        """Names of the classes; None if they have none."""
        feature = None if column is None or self._labels is None else self._labels.features[column]
        names = getattr(feature, "names", None)
        return tuple(names) if names else None

    def content(self, rows: list[int]) -> bytes:
        """The encoded images or the arrays."""
        values = self.read(rows)
        return b"".join(value or b"" if self.is_image else np.asarray(value).tobytes() for value in values)


class ParquetRows(Rows):
    """Rows of parquet files, read one row group at a time.

    The row groups that were read last are kept: as many as have ``buffer`` rows, and the two largest.

    Args:
        paths: local files, or addresses ``hf://...``.
        column: of the examples.
        label: column of the labels, or None.
        buffer: number of rows.

    Raises:
        ValueError: for columns that are missing, or of another type; for files that differ in them.
    """

    def __init__(self, paths: Sequence[str], column: str, label: str | None, buffer: int) -> None:
        self._paths = paths
        self._name = column
        self._features: Any = None
        starts, self._groups, digest = [0], [], hashlib.blake2b(digest_size=16)
        for number, path in enumerate(paths):
            file = _open(path)
            described = describe(_features(file), column, label)
            if number == 0:
                self._features = _features(file)
                self.is_image, self.dtype = described
            elif described != (self.is_image, self.dtype):
                raise ValueError(f"data.column={column} has another type in {path} than in {paths[0]}")
            digest.update(_footer(path))
            for group in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
                self._groups.append((path, group))
        self._starts = np.array(starts)
        self._digest = digest.digest()
        largest = int(np.diff(self._starts).max()) if self._groups else 0
        self._most_rows = buffer + 2 * largest
        self._cache: OrderedDict[int, DatasetRows] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: list[int]) -> list[Any] | np.ndarray:
        """Values of the column: bytes of images, or arrays."""
        wanted = np.array(rows)
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        values: list[Any] = [None] * len(rows)
        for group in np.unique(group_of).tolist():
            places = np.flatnonzero(group_of == group)
            inside = (wanted[places] - self._starts[group]).tolist()
            for place, value in zip(places.tolist(), self._group(group).read(inside), strict=True):
                values[place] = value
        return values

    def _group(self, group: int) -> DatasetRows:
        """A row group, from the cache or the file."""
        import datasets as library

        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        path, number = self._groups[group]
        table = _open(path).read_row_group(number, columns=[self._name])
        self._cache[group] = DatasetRows(library.Dataset(table), self._name, None)
        while sum(map(len, self._cache.values())) > self._most_rows:
            self._cache.popitem(last=False)
        return self._cache[group]

    def labels(self, column: str) -> np.ndarray:
        """All values of the column of labels, (N,)."""
        parts = [_label_values(_open(path).read(columns=[column]).column(0), column) for path in self._paths]
        return np.concatenate(parts)

    def class_names(self, column: str | None) -> tuple[str, ...] | None:
        """Names of the classes; None if they have none."""
        names = getattr(None if column is None else self._features[column], "names", None)
        return tuple(names) if names else None

    def content(self, rows: list[int]) -> bytes:
        """The metadata of all files, and the numbers of the rows."""
        return self._digest + np.array(rows, "<i8").tobytes()

    def block_sizes(self, rows: Tensor) -> list[int]:
        """Numbers of consecutive ``rows`` (n,) in each row group."""
        group = torch.searchsorted(torch.from_numpy(self._starts), rows, right=True) - 1
        counts = torch.bincount(group, minlength=len(self._groups))
        return counts[counts > 0].tolist()


def describe(features: "datasets.Features", column: str, label: str | None) -> tuple[bool, np.dtype]:
    """Whether a column has images, and the dtype of its arrays.

    Raises:
        ValueError: for columns that are missing, or of another type; for labels that are not integers.
    """
    import datasets as library

    for option, name in (("column", column), ("label", label)):
        if name is not None and name not in features:
            hint = " (null for no labels)" if option == "label" else ""
            raise ValueError(f"there is no data.{option}={name}{hint}: its columns are {', '.join(features)}")
    if label is not None and not isinstance(features[label], library.ClassLabel):
        dtype = getattr(features[label], "dtype", None)
        if not isinstance(features[label], library.Value) or not str(dtype).startswith(
            ("int", "uint", "bool")
        ):
            raise ValueError(
                f"data.label={label} is {_kind(features[label])}: labels must be integers 0, 1, ..."
            )
    feature = features[column]
    is_encoded = isinstance(feature, library.Value) and feature.dtype in ("binary", "large_binary")
    if isinstance(feature, library.Image) or is_encoded or (isinstance(feature, dict) and "bytes" in feature):
        return True, np.dtype(np.uint8)
    leaf: Any = feature
    is_array = False
    while hasattr(leaf, "feature"):  # a list
        leaf, is_array = leaf.feature, True
    if isinstance(leaf, library.Array2D | library.Array3D | library.Array4D | library.Array5D):
        is_array = True
    dtype = getattr(leaf, "dtype", "")
    if not is_array or not str(dtype).startswith(("int", "uint", "bool", "float")):
        raise ValueError(
            f"data.column={column} is {_kind(feature)}: expected images or arrays of numbers; columns are "
            + ", ".join(f"{name} ({_kind(other)})" for name, other in features.items())
        )
    return False, np.dtype(dtype)


def _kind(feature: Any) -> str:
    """The type of a column in a message."""
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else name


def _label_values(column: Any, name: str) -> np.ndarray:
    """A column of Arrow as an array.

    Raises:
        ValueError: for missing values.
    """
    if column.null_count:
        raise ValueError(f"data.label={name} has {column.null_count} missing values: labels must be integers")
    return column.to_numpy()


def _open(path: str) -> "pq.ParquetFile":
    return _open_in(path, os.getpid())


@lru_cache(maxsize=8)  # the last files stay open, in each process its own
def _open_in(path: str, process: int) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    return pq.ParquetFile(_stream_of(path) if "://" in path else path)


def _stream_of(path: str) -> Any:
    from fsspec.core import url_to_fs

    filesystem, inside = url_to_fs(path)
    return filesystem.open(inside, "rb")


def _features(file: "pq.ParquetFile") -> "datasets.Features":
    """The columns of a file, as the library describes them."""
    import datasets as library

    return library.Features.from_arrow_schema(file.schema_arrow)


def _footer(path: str) -> bytes:
    """The metadata at the end of a parquet file: sizes and statistics of all row groups."""
    with _stream_of(path) if "://" in path else open(path, "rb") as stream:  # noqa: PTH123
        stream.seek(-8, 2)
        length = int.from_bytes(stream.read(8)[:4], "little")
        stream.seek(-8 - length, 2)
        return stream.read(length)
