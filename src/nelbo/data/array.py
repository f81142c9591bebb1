"""Examples in NumPy files, memory-mapped."""

import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Unpack

import numpy as np
from annotated_types import Ge, Le
from torch import Tensor

from nelbo.atomic_file import check_growth
from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.batch import Batch
from nelbo.data.examples import Examples
from nelbo.data.render import Renderer
from nelbo.data.spec import DataSpec
from nelbo.data.split import hold_out
from nelbo.data.values import example_shape, infer_levels, to_examples, to_labels
from nelbo.option_types import Folder


class Array(DataModule):
    """An array of examples, with optional labels: images, series, volumes or vectors of one shape.

    Of every ``parts`` examples of a class, one goes to validation, one to test and the others to training.

    A ``.npy`` file is mapped into memory, and an array of an ``.npz`` file as well if it is not compressed.
    Every file is read once, for the fingerprint of the data.

    Args:
        root: the folder of the files.
        x: file of the examples (N, ...) in ``root``: ``images.npy``, or ``data.npz/images`` for one array of
            an ``.npz`` file. Integers are level indices, floats are continuous.
        label: file of the labels (N,), integers from 0; None for data without labels.
        levels: number of levels of integers; None for 256 (uint8), 65536 (uint16) or 2 (bool).
        channel_axis: 1 for examples (C, ...), -1 for (..., C); None if there is no axis of channels.
        parts: see above.
        renderer: of samples: ``image``, ``lines``, ``slice`` or ``none``; None for the one of the shape.
        flip: mirror training images at random.
        loading: see :class:`DataModule`.
    """

    def __init__(
        self,
        root: Folder = ".",
        x: str = "images.npy",
        label: str | None = None,
        levels: Annotated[int, Ge(2), Le(65536)] | None = None,
        channel_axis: Literal[1, -1] | None = 1,
        parts: Annotated[int, Ge(3)] = 10,
        renderer: Renderer | None = None,
        flip: bool = False,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.root = folder_of(root)
        self.x = x
        self.label = label
        self.levels = levels
        self.channel_axis: int | None = channel_axis
        self.parts = parts
        self.renderer: Renderer | None = renderer
        self.flip = flip

    @cached_property
    def spec(self) -> DataSpec:
        """Shape and levels of the array; the classes are 0 to the largest label.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: for arrays that are no examples or labels.
        """
        values, label = self._values, self._labels
        levels = infer_levels(values.dtype, self.levels, f"data.x={self.x}")
        shape = example_shape(values.shape[1:], self.channel_axis, f"data.x={self.x}")
        classes = None if label is None else int(label.max()) + 1
        return DataSpec(shape, levels, classes, renderer=self.renderer)

    @cached_property
    def _values(self) -> np.ndarray:
        values = open_array(self.root, self.x, "data.x")
        if values.ndim < 2 or 0 in values.shape:
            raise ValueError(
                f"data.x={self.x} has the shape {values.shape}: expected (N, ...), an example for each index "
                "of the first axis"
            )
        return values

    @cached_property
    def _labels(self) -> Tensor | None:
        if self.label is None:
            return None
        values = np.asarray(open_array(self.root, self.label, "data.label"))
        return to_labels(values, len(self._values), f"data.label={self.label}")

    def read_split(self, name: SplitName) -> Examples:
        """One of the parts of the array; nothing is read."""
        label = self._labels
        rows = hold_out(label, len(self._values), ("val", "test"), self.parts)
        return ArrayExamples(self, self._values, rows[name], None if label is None else label[rows[name]])


class ArrayExamples(Examples):
    """Rows of an array.

    Args:
        data: the data module.
        values: (N, ...) as stored.
        rows: (n,) int64, the rows of this split.
        label: (n,) int64, or None.
    """

    def __init__(self, data: Array, values: np.ndarray, rows: Tensor, label: Tensor | None) -> None:
        self.file, self.channel_axis, self.spec = f"data.x={data.x}", data.channel_axis, data.spec
        self.values = values
        self.rows = rows
        self.label = label

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """The row."""
        return f"row {int(self.rows[index])} of {self.file}"

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The examples at ``indices`` (B,), equal in all epochs."""
        values = self.values[self.rows[indices].numpy()]
        x0 = to_examples(values, self.channel_axis, self.spec, self.file)
        return Batch(x0, None if self.label is None else self.label[indices], indices)


def open_array(root: Path, name: str, option: str) -> np.ndarray:
    """An array of a file, mapped into memory unless it is compressed. Nothing is unpickled.

    Args:
        root: the folder of the file.
        name: ``file.npy``, or ``file.npz/array``.
        option: of ``name``, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, has no such array, or is compressed too much to be unpacked.
    """
    file, npz, member = name.partition(".npz/")
    path = root / (f"{file}.npz" if npz else name)
    if not path.is_file():
        where = "" if path == Path(name) else "; data.root is its folder"
        raise FileNotFoundError(f"{option}={name}: there is no file {path}{where}")
    try:
        if path.suffix != ".npz":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            names = [Path(entry).stem for entry in archive.namelist()]
            if member not in names:
                raise ValueError(f"choose one of its arrays, such as {option}={path.name}/{names[0]}: "
                                 f"{', '.join(names)}")  # fmt: skip
            entry = archive.getinfo(f"{member}.npy")
            if entry.compress_type == zipfile.ZIP_STORED:
                return _map_entry(path, archive, entry)
            try:
                check_growth(path.stat().st_size, entry.file_size)
            except ValueError as error:
                raise ValueError(f"{error}; np.savez stores arrays without compression") from error
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[member]
    except (
        OSError, EOFError, KeyError, IndexError, MemoryError, ValueError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        raise ValueError(f"{option}={name} cannot be read: {error}") from error


def _map_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Map an uncompressed array of an ``.npz`` file, which NumPy itself does not."""
    with archive.open(entry) as stream, path.open("rb") as file:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError("it has Python objects")
        header = stream.tell()
        file.seek(entry.header_offset + 26)  # the lengths of the name and of the extra field of the entry
        lengths = np.frombuffer(file.read(4), "<u2")
    begin = entry.header_offset + 30 + int(lengths.sum()) + header
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran_order else "C")
