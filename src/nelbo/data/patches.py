"""Crops of the two photographs of scikit-learn: natural images without a download."""

from typing import Annotated, Unpack

import numpy as np
import torch
from annotated_types import Ge, Le
from sklearn.datasets import load_sample_images
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName
from nelbo.data.batch import Batch
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.option_types import PositiveInt
from nelbo.randomness import generator

# columns of each photograph (427 rows, 640 columns) in each split
COLUMNS: dict[SplitName, slice] = {
    "val": slice(0, 96),
    "train": slice(96, 544),
    "test": slice(544, 640),
}
_MAX_SIZE = 96  # the width of the narrowest region


class Patches(DataModule):
    """Square 8-bit RGB crops. The regions of the splits do not overlap.

    An epoch of training has ``crops_per_epoch`` crops at random positions. Validation and test are the tiles
    of their regions: 78 each at size 32.

    Args:
        size: height and width of a crop, at most 96.
        crops_per_epoch: training crops, drawn for each epoch.
        flip: mirror training crops at random.
        loading: see :class:`DataModule`.

    Raises:
        ValueError: if ``size`` is larger than the regions.
    """

    def __init__(
        self,
        size: Annotated[int, Ge(1), Le(_MAX_SIZE)] = 32,
        crops_per_epoch: PositiveInt = 8192,
        flip: bool = True,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.flip = flip
        if not 1 <= size <= _MAX_SIZE:
            raise ValueError(f"data.size must be between 1 and {_MAX_SIZE}, got {size}")
        self.size = size
        self.crops_per_epoch = crops_per_epoch

    @property
    def spec(self) -> DataSpec:
        """8-bit colour images without classes."""
        return DataSpec(shape=(3, self.size, self.size), levels=256, num_classes=None)

    def read_split(self, name: SplitName) -> Examples:
        """Crop the region of the split."""
        photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
        region = photographs[..., COLUMNS[name]].contiguous()
        if name == "train":
            return RandomCrops(region, self.size, self.crops_per_epoch, self.seed)
        return TensorExamples(_tiles(region, self.size))


class RandomCrops(Examples):
    """Square crops, uniform over images and positions, keyed by (seed, epoch, index).

    Args:
        images: ``(N, C, H, W)``.
        size: height and width of a crop.
        n: crops in an epoch.
        seed: see ``DataModule``.
    """

    def __init__(self, images: Tensor, size: int, n: int, seed: int) -> None:
        self.images = images
        self.size = size
        self.n = n
        self.seed = seed

    def __len__(self) -> int:
        return self.n

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The crops of the epoch at ``indices`` (B,)."""
        images, _, height, width = self.images.shape
        g = generator(self.seed, epoch, "crop")
        # drawn for the whole epoch, so that a crop does not depend on its batch
        image, top, left = (
            torch.randint(high, (self.n,), generator=g)[indices]
            for high in (images, height - self.size + 1, width - self.size + 1)
        )
        side = torch.arange(self.size)
        rows = (top[:, None] + side)[:, :, None]  # (B, size, 1)
        columns = (left[:, None] + side)[:, None, :]  # (B, 1, size)
        # the colon between index tensors puts channels last: (B, size, size, C)
        crops = self.images[image[:, None, None], :, rows, columns]
        return Batch(crops.permute(0, 3, 1, 2).contiguous(), None, indices)


def _tiles(images: Tensor, size: int) -> Tensor:
    """All tiles of a grid without overlap, (N, C, size, size); the rest at the edges is not used."""
    tiles = images.unfold(2, size, size).unfold(3, size, size)  # (N, C, rows, columns, size, size)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1], size, size)
