"""Data sets of the Hugging Face library ``datasets``: a hub id, or local parquet or arrow files."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.batch import Batch
from nelbo.data.examples import Examples
from nelbo.data.image_file import decode_bytes, height_and_width, image_shape
from nelbo.data.render import Renderer
from nelbo.data.rows import DatasetRows, ParquetRows, Rows
from nelbo.data.spec import DataSpec
from nelbo.data.split import SPLIT_OF, hold_out
from nelbo.data.values import example_shape, infer_levels, to_examples, to_labels, with_channels
from nelbo.option_types import Folder, ImageSize, PositiveInt

if TYPE_CHECKING:
    import datasets

# without an owner, it can be a reader of the library: pandas, which unpickles files of the current folder
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FORMATS = ("parquet", "arrow")  # suffixes of local files


class HFDataset(DataModule):
    """A column of images or of numerical arrays, with an optional column of labels.

    The splits are ``train``, ``validation`` (or ``val``, ``valid``) and ``test``. Of a local folder, they are
    parts of the names of files or folders: ``train-00000-of-00002.parquet``, ``test/0.arrow``. Files without
    such a name, and a data set with one split only, are training data. A split that is missing is held out of
    the training split: of every ``parts`` examples of a class, one.

    Without ``streaming``, the library converts the files to memory-mapped Arrow files in its cache. With
    ``streaming``, parquet files are read directly, one row group at a time, and a batch is drawn from a
    buffer of shuffled row groups. Memory holds this buffer and the label and order of each example. The order
    is a function of (seed, epoch) in both cases, so that a run is resumed at its exact position, and batches
    do not depend on the number of processes; each process reads the row groups of all. The data is identified
    by its content, with ``streaming`` by the metadata at the end of each file.

    No code of a data set is run: data sets with a script are refused.

    Args:
        root: a folder of ``.parquet`` or ``.arrow`` files, in place of ``hub``.
        hub: id of a data set on the Hugging Face hub, such as ``ylecun/mnist``, in place of ``root``.
        name: of the configuration of a hub data set that has several.
        revision: commit, tag or branch of a hub data set; None for the newest.
        download: download missing data of the hub. Otherwise, the cache of the library has to contain it.
        column: of the examples: images, or arrays of equal shape.
        label: column of the labels, integers from 0; None for data without labels.
        streaming: read parquet files without a copy in the cache; see above.
        buffer: examples that are shuffled together with ``streaming``.
        size: crop images to a centred square and resize them, or to [height, width]; None if all images have
            the same size.
        channels: of images: 1 (grey) or 3 (RGB); None for those of the first one.
        levels: number of levels of integer arrays; None for 256 (uint8), 65536 (uint16) or 2 (bool).
        channel_axis: 1 for arrays (C, ...), -1 for (..., C); None if there is no axis of channels.
        parts: see above.
        renderer: of samples: ``image``, ``lines``, ``slice`` or ``none``; None for the one of the shape.
        flip: mirror training images at random.
        loading: see :class:`DataModule`.

    Raises:
        ValueError: unless exactly one of ``root`` and ``hub`` is given.
    """

    def __init__(
        self,
        root: Folder | None = None,
        hub: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        download: bool = True,
        column: str = "image",
        label: str | None = None,
        streaming: bool = False,
        buffer: PositiveInt = 10_000,
        size: ImageSize | None = None,
        channels: Literal[1, 3] | None = None,
        levels: Annotated[int, Ge(2), Le(65536)] | None = None,
        channel_axis: Literal[1, -1] | None = 1,
        parts: Annotated[int, Ge(3)] = 10,
        renderer: Renderer | None = None,
        flip: bool = False,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.root = None if root is None else folder_of(root)
        self.hub, self.name, self.revision, self.download = hub, name, revision, download
        self.column, self.label = column, label
        self.streaming, self.buffer = streaming, buffer
        self.size = None if size is None else height_and_width(size)
        self.channels, self.levels = channels, levels
        self.channel_axis: int | None = channel_axis
        self.parts = parts
        self.renderer: Renderer | None = renderer
        self.flip = flip

    @cached_property
    def spec(self) -> DataSpec:
        """Shape and levels of the first training example; the classes are those of the training data.

        Raises:
            FileNotFoundError: if there is no data.
            ValueError: for columns that are missing or of another type.
        """
        rows = self._rows["train"]
        names = rows.class_names(self.label)
        classes = len(names) if names else None
        if self.label is not None and names is None:
            classes = 1 + max(int(label.max()) for label in self._labels.values() if label is not None)
        first = rows.read([0])[0]
        if not rows.is_image:
            levels = infer_levels(rows.dtype, self.levels, f"data.column={self.column}")
            shape = example_shape(np.shape(first), self.channel_axis, f"data.column={self.column}")
            return DataSpec(shape, levels, classes, names, self.renderer)
        found, height, width = image_shape(first, self._where("train", 0))
        shape = (self.channels or found, *(self.size or (height, width)))
        return DataSpec(shape, 256, classes, names, self.renderer)

    @cached_property
    def _rows(self) -> dict[SplitName, Rows]:
        """The splits that the data has.

        Raises:
            FileNotFoundError: if there is no data.
            ValueError: for data that cannot be read, or without the columns.
        """
        if (self.root is None) == (self.hub is None):
            raise ValueError("data=hf_dataset needs data.root (a folder) or data.hub (an id), not both")
        splits = _open_folder(self) if self.root is not None else _open_hub(self)
        if len(splits) == 1:
            splits = {"train": next(iter(splits.values()))}
        found: dict[SplitName, Rows] = {
            SPLIT_OF[name]: rows for name, rows in splits.items() if name in SPLIT_OF
        }
        if "train" not in found:
            raise ValueError(f"{self.source} has the splits {', '.join(splits)}: expected one named train")
        return found

    @cached_property
    def _labels(self) -> dict[SplitName, Tensor | None]:
        """The labels of the splits that the data has."""
        option = f"data.label={self.label}"
        return {
            split: None if self.label is None else to_labels(rows.labels(self.label), len(rows), option)
            for split, rows in self._rows.items()
        }

    @cached_property
    def _held_out(self) -> dict[str, Tensor]:
        """The rows of the training data that belong to train and to each missing split."""
        missing = [split for split in ("val", "test") if split not in self._rows]
        if not missing:
            return {}
        return hold_out(self._labels["train"], len(self._rows["train"]), missing, self.parts)

    def read_split(self, name: SplitName) -> Examples:
        """A split of the data, or the part of its training split; nothing is decoded."""
        source: SplitName = name if name in self._rows else "train"
        rows, label = self._rows[source], self._labels[source]
        chosen = self._held_out.get(name, torch.arange(len(rows)))
        if self.streaming:  # read in the order of the file
            chosen = chosen.sort().values
        return RowExamples(self, source, chosen, None if label is None else label[chosen])

    def rows(self, split: SplitName) -> Rows:
        """The rows of a split that the data has."""
        return self._rows[split]

    @property
    def source(self) -> str:
        """The option that selects the data, for messages."""
        return f"data.hub={self.hub}" if self.root is None else f"data.root={self.root}"

    def _where(self, split: str, row: int) -> str:
        return f"{self.source}, row {row} of {split}"

    def decode(self, values: list[Any] | np.ndarray, split: SplitName, rows: list[int]) -> Tensor:
        """Values of the column as a batch (B, *shape) of level indices or float32 values.

        Raises:
            ValueError: for images that cannot be read, or examples of another shape than the first.
        """
        spec = self.spec
        if self._rows["train"].is_image:
            x = [decode_bytes(value, self.size, spec.shape[0], self._where(split, row))
                 for value, row in zip(values, rows, strict=True)]  # fmt: skip
            for image, row in zip(x, rows, strict=True):
                if tuple(image.shape) != spec.shape:
                    raise ValueError(
                        f"{self._where(split, row)} is an image of {image.shape[1]}x{image.shape[2]}, the "
                        f"first one of {spec.shape[1]}x{spec.shape[2]}: set data.size to resize all of them"
                    )
            return torch.stack(x)
        for value, row in zip(values, rows, strict=True):
            if with_channels(np.shape(value), self.channel_axis) != spec.shape:
                raise ValueError(
                    f"{self._where(split, row)} has an array of shape {np.shape(value)} in data.column="
                    f"{self.column}; as an example of the first row it should give {spec.shape}"
                )
        where = self._where(split, rows[0]) + (f" or one of {len(rows) - 1} others" if len(rows) > 1 else "")
        return to_examples(np.stack(list(values)), self.channel_axis, spec, where)


class RowExamples(Examples):
    """Rows of a split of a data set, decoded when they are fetched.

    Args:
        data: the data module.
        split: the split of the data set that has the rows.
        chosen: (n,) int64, the rows of these examples.
        label: (n,) int64, or None.
    """

    def __init__(self, data: HFDataset, split: SplitName, chosen: Tensor, label: Tensor | None) -> None:
        self.data = data
        self.split: SplitName = split
        self.chosen = chosen
        self.label = label
        self.block_sizes = data.rows(split).block_sizes(chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        """The row."""
        return f"row {int(self.chosen[index])} of {self.split}"

    def content(self, indices: Tensor) -> bytes:
        """Encoded images or arrays; with streaming, the files and the rows."""
        return self.data.rows(self.split).content(self.chosen[indices].tolist())

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """Decode the examples at ``indices`` (B,), equal in all epochs."""
        rows = self.chosen[indices].tolist()
        x0 = self.data.decode(self.data.rows(self.split).read(rows), self.split, rows)
        return Batch(x0, None if self.label is None else self.label[indices], indices)


def _open_folder(data: HFDataset) -> dict[str, Rows]:
    """The splits of a folder, by name.

    Raises:
        FileNotFoundError: if there are no files.
        ValueError: for files that cannot be read, or of both formats.
    """
    assert data.root is not None
    files: dict[str, list[Path]] = {}
    for path in sorted(data.root.rglob("*")):
        if path.suffix[1:] in FORMATS and path.is_file():
            files.setdefault(path.suffix[1:], []).append(path)
    if not files:
        raise FileNotFoundError(f"no .parquet or .arrow files in {data.root}: set data.root to their folder")
    if len(files) > 1:
        raise ValueError(f"data.root={data.root} has .parquet and .arrow files: keep those of one format")
    [(suffix, paths)] = files.items()
    library = _library()
    splits: dict[str, list[str]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", path.relative_to(data.root).as_posix().lower())
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "train")
        splits.setdefault(split, []).append(str(path))
    if data.streaming:
        if suffix != "parquet":
            raise ValueError(
                "data.streaming=true reads .parquet files; .arrow files are mapped into memory: use "
                "data.streaming=false"
            )
        return _stream(data, splits)
    with _reported(data):
        return _select(data, library.load_dataset(suffix, data_files=splits))


def _open_hub(data: HFDataset) -> dict[str, Rows]:
    """The splits of a data set of the hub, by name.

    Raises:
        ValueError: for a data set that is not there, cannot be read, or has a script.
    """
    assert data.hub is not None
    if not HUB_ID.fullmatch(data.hub):
        raise ValueError(
            f"data.hub={data.hub} is no id of a data set, such as ylecun/mnist; data.root is a folder"
        )
    library = _library()
    with _reported(data), _offline(library, not data.download):
        if not data.streaming:
            return _select(data, library.load_dataset(data.hub, data.name, revision=data.revision))
        builder = library.load_dataset_builder(data.hub, data.name, revision=data.revision)
        files = builder.config.data_files or {}
        if not all(str(path).endswith(".parquet") for paths in files.values() for path in paths):
            raise ValueError("its files are not all .parquet: use data.streaming=false")
        return _stream(data, {split: list(map(str, paths)) for split, paths in files.items()})


def _select(data: HFDataset, splits: "Mapping[str, datasets.Dataset]") -> dict[str, Rows]:
    return {name: DatasetRows(split, data.column, data.label) for name, split in splits.items() if len(split)}


def _stream(data: HFDataset, splits: Mapping[str, list[str]]) -> dict[str, Rows]:
    with _reported(data):
        rows = {
            name: ParquetRows(paths, data.column, data.label, data.buffer) for name, paths in splits.items()
        }
    return {name: split for name, split in rows.items() if len(split)}


def _library() -> Any:  # the module
    """The library, which takes seconds to import.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("data=hf_dataset needs a library: pip install 'nelbo[datasets]'") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


@contextmanager
def _reported(data: HFDataset) -> Iterator[None]:
    """Report errors of the library in one line.

    Raises:
        ValueError: naming the data and the cause.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{data.source}: {_line(error)}") from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{data.source} cannot be read: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """The first line of what caused an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _offline(library: Any, offline: bool) -> Iterator[None]:
    """Let the library use its cache only."""
    before = library.config.HF_HUB_OFFLINE
    library.config.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        library.config.HF_HUB_OFFLINE = before
