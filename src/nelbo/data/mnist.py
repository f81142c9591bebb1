"""MNIST (LeCun et al. 1998), from the original files, compressed or not."""

import gzip
import os
import zlib
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torchvision
from torch import Tensor

from nelbo.atomic_file import FREE_BYTES, MAX_GROWTH, check_growth, open_regular
from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.download import download
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.data.split import stratified_parts
from nelbo.option_types import Folder


class MNIST(DataModule):
    """70,000 grey images of 28x28, 256 levels, 10 classes: 55,000 / 5,000 / 10,000.

    Test is the official test set. Of every twelve training images of a class, one goes to validation.

    Args:
        root: parent folder of ``MNIST/raw/`` with the four files or their ``.gz``. With all files it may be
            read-only.
        download: download missing files.
        loading: see :class:`DataModule`.
    """

    source: type[torchvision.datasets.MNIST] = torchvision.datasets.MNIST
    """The torchvision class with the addresses of the files; its name is the name of the folder."""
    class_names: tuple[str, ...] = tuple("0123456789")
    """Class names in the order of the labels."""

    def __init__(
        self,
        root: Folder = "datasets",
        download: bool = True,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.root = folder_of(root)
        self.download = download

    @property
    def spec(self) -> DataSpec:
        """8-bit grey images of 28x28."""
        return DataSpec((1, 28, 28), levels=256, num_classes=10, class_names=self.class_names)

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / self.source.__name__ / "raw"

    def prepare_data(self) -> None:
        """Download missing files, if ``download`` is set.

        Raises:
            OSError: if the download fails.
        """
        stems = [Path(name).stem for name, _ in self.source.resources]
        if self.download and any(_find(self.folder, stem) is None for stem in stems):
            download(self.source, str(self.root))

    def read_split(self, name: SplitName) -> Examples:
        """Read the official files; validation is a part of the official training set."""
        official = "t10k" if name == "test" else "train"
        x = _read_idx(self.folder, f"{official}-images-idx3-ubyte")[:, None]
        label = _read_idx(self.folder, f"{official}-labels-idx1-ubyte").long()
        if name == "test":
            return TensorExamples(x, label)
        val, *train = stratified_parts(label, parts=12)
        chosen = val if name == "val" else torch.cat(train)
        return TensorExamples(x[chosen], label[chosen])


def _find(folder: Path, stem: str) -> Path | None:
    """The uncompressed file, or else the compressed one, or None."""
    paths = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in paths if path.is_file()), None)


def _read_idx(folder: Path, stem: str) -> Tensor:
    """Read uint8 values in the IDX format: a magic number that ends in the number of axes, sizes, values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = _find(folder, stem)
    if path is None:
        raise FileNotFoundError(
            f"no {stem} or {stem}.gz in {folder}: set data.root (evaluate.py and sample.py: root) to the "
            f"folder that holds {folder.parent.name}/raw, or data.download=true to fetch it"
        )
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            with gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as stream:
                content = stream.read(FREE_BYTES + MAX_GROWTH * size + 1)
        check_growth(size, len(content))
        axes = content[3]
        shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch it again") from error
    return torch.from_numpy(values.copy())  # the buffer is read-only
