"""Gaussian data, for which every term of the bound and the entropy are known exactly."""

from typing import Unpack

import torch

from nelbo.data.base import DataModule, Loading, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.option_types import PositiveFloat, PositiveInt
from nelbo.randomness import generator


class Gaussian(DataModule):
    """Vectors from N(0, std^2 I).

    Args:
        dims: dimensions D of a vector.
        std: standard deviation in each of them.
        n_train, n_val, n_test: vectors in each split, which do not depend on the seed.
        loading: see :class:`DataModule`.
    """

    def __init__(
        self,
        dims: PositiveInt = 2,
        std: PositiveFloat = 1.0,
        n_train: PositiveInt = 50_000,
        n_val: PositiveInt = 5_000,
        n_test: PositiveInt = 5_000,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.dims = dims
        self.std = std
        self.sizes = {"train": n_train, "val": n_val, "test": n_test}

    @property
    def spec(self) -> DataSpec:
        """Continuous vectors."""
        return DataSpec(shape=(self.dims,), levels=None, num_classes=None)

    def read_split(self, name: SplitName) -> Examples:
        """Draw the vectors."""
        noise = torch.randn(self.sizes[name], self.dims, generator=generator(0, 0, name))
        return TensorExamples(self.std * noise)
