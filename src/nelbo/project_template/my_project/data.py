"""Stripes: small images with a known structure, generated without a file."""

from typing import Unpack

import torch
from nelbo.data import DataModule, DataSpec
from nelbo.data.base import Loading, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.randomness import generator

LEVELS = 16


class Stripes(DataModule):
    """Grey 8x8 images of a sine wave of random wavelength and phase, 16 levels.

    The two classes are the directions: horizontal and vertical.

    Args:
        n_train, n_val, n_test: images in each split, which do not depend on the seed.
        loading: see :class:`DataModule`.
    """

    def __init__(
        self, n_train: int = 4000, n_val: int = 500, n_test: int = 500, **loading: Unpack[Loading]
    ) -> None:
        super().__init__(**loading)
        self.sizes = {"train": n_train, "val": n_val, "test": n_test}

    @property
    def spec(self) -> DataSpec:
        """8x8 images with values 0..15."""
        return DataSpec((1, 8, 8), levels=LEVELS, num_classes=2, class_names=("horizontal", "vertical"))

    def read_split(self, name: SplitName) -> Examples:
        """Generate the images of a split."""
        n, random = self.sizes[name], generator("stripes", name)
        wavelength, phase = 3.0 + 5.0 * torch.rand(n, 1, generator=random), torch.rand(n, 1, generator=random)
        wave = torch.sin(2 * torch.pi * (torch.arange(8) / wavelength + phase))
        label = torch.randint(2, (n,), generator=random)
        horizontal = wave[:, :, None].expand(n, 8, 8)
        image = torch.where(label[:, None, None] == 0, horizontal, horizontal.mT)
        level = ((image + 1) / 2 * (LEVELS - 1)).round().to(torch.uint8)
        return TensorExamples(level[:, None], label)
