"""MNIST, read from the original files, unpacked or not."""

import gzip
import zlib
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torchvision
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.download import download
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.data.split import deal
from nelbo.option_types import Folder


class MNIST(DataModule):
    """70,000 grey images of 28x28, 256 levels, 10 classes: 55,000 / 5,000 / 10,000.

    Test is the official test set. Of every twelve training images of a class, one goes to validation.

    Args:
        root: the folder that holds ``MNIST/raw/``, with the four files or their ``.gz``; may be
            read-only if they are there.
        download: fetch the files if they are not there.
        loading: see :class:`DataModule`.
    """

    source: type[torchvision.datasets.MNIST] = torchvision.datasets.MNIST
    """The torchvision class that knows where the files are published and what their folder is called."""
    class_names: tuple[str, ...] = tuple("0123456789")
    """In the order of the labels."""

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
        """8-bit grey images; 28 can be halved twice."""
        return DataSpec((1, 28, 28), levels=256, num_classes=10, class_names=self.class_names)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.root / self.source.__name__ / "raw"

    def prepare_data(self) -> None:
        """Download the files that are missing, if that is wanted.

        Raises:
            OSError: if that fails.
        """
        stems = [Path(name).stem for name, _ in self.source.resources]
        if self.download and any(_find(self.folder, stem) is None for stem in stems):
            download(self.source, str(self.root))

    def read_split(self, name: SplitName) -> Examples:
        """Read the official files, and set the validation images apart from the training images."""
        official = "t10k" if name == "test" else "train"
        x = _read_idx(self.folder, f"{official}-images-idx3-ubyte")[:, None]
        label = _read_idx(self.folder, f"{official}-labels-idx1-ubyte").long()
        if name == "test":
            return TensorExamples(x, label)
        val, *train = deal(label, hands=12)
        chosen = val if name == "val" else torch.cat(train)
        return TensorExamples(x[chosen], label[chosen])


def _find(folder: Path, stem: str) -> Path | None:
    """The file, unpacked or else packed, or None."""
    paths = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in paths if path.is_file()), None)


def _read_idx(folder: Path, stem: str) -> Tensor:
    """Read bytes in the IDX format: a magic number that ends in the number of axes, sizes, values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = _find(folder, stem)
    if path is None:
        raise FileNotFoundError(
            f"no {stem} or {stem}.gz in {folder}: set data.root to the folder that holds "
            f"{folder.parent.name}/raw, or data.download=true to fetch it"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = content[3]
        shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch it again") from error
    return torch.from_numpy(values.copy())  # a buffer of bytes is read-only, a tensor must not be
