"""CIFAR-10 (Krizhevsky 2009), from its official Python files."""

from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torchvision

from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.download import download
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.data.split import stratified_parts
from nelbo.option_types import Folder

# those of the file batches.meta, needed before the download
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip


class CIFAR10(DataModule):
    """60,000 RGB images of 32x32, 256 levels, 10 classes: 45,000 / 5,000 / 10,000.

    Test is the official test set. Of every ten training images of a class, one goes to validation.

    Args:
        root: parent folder of ``cifar-10-batches-py/``.
        download: download missing data.
        flip: mirror training images at random.
        loading: see :class:`DataModule`.
    """

    def __init__(
        self,
        root: Folder = "datasets",
        download: bool = True,
        flip: bool = True,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.flip = flip
        self.root = folder_of(root)
        self.download = download

    @property
    def spec(self) -> DataSpec:
        """8-bit colour images."""
        return DataSpec((3, 32, 32), levels=256, num_classes=10, class_names=CLASS_NAMES)

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / torchvision.datasets.CIFAR10.base_folder

    def prepare_data(self) -> None:
        """Download missing data, if ``download`` is set.

        Raises:
            OSError: if the download fails.
        """
        if self.download and not self.folder.is_dir():
            download(torchvision.datasets.CIFAR10, str(self.root))

    def read_split(self, name: SplitName) -> Examples:
        """Read the official files; validation is a part of the official training set."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"no CIFAR-10 in {self.folder}: set data.root (evaluate.py and sample.py: root) to the "
                f"folder that holds {self.folder.name}, or data.download=true to fetch it"
            )
        try:
            official = torchvision.datasets.CIFAR10(self.root, train=name != "test")
        except RuntimeError as error:  # a wrong checksum
            raise ValueError(f"{self.folder} is damaged: delete it and fetch it again") from error
        x = torch.from_numpy(np.asarray(official.data)).permute(0, 3, 1, 2).contiguous()
        label = torch.tensor(official.targets)
        if name == "test":
            return TensorExamples(x, label)
        val, *train = stratified_parts(label, parts=10)
        chosen = val if name == "val" else torch.cat(train)
        return TensorExamples(x[chosen], label[chosen])
