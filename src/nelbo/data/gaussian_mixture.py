"""A mixture of Gaussians: multimodal data with a denoiser in closed form."""

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.option_types import PositiveFloat, PositiveInt
from nelbo.randomness import generator


class GaussianMixture(DataModule):
    """Vectors from sum_k weights_k N(means_k, std^2 I), labelled with their component.

    Args:
        components: number of components, evenly spaced on a circle in the plane.
        radius: radius of that circle.
        means: (K, D) points instead of the circle.
        weights: K positive numbers, normalised to sum 1; None for equal weights.
        std: standard deviation of each component, in each dimension.
        n_train, n_val, n_test: vectors in each split, which do not depend on the seed.
        loading: see :class:`DataModule`.

    Attributes:
        means: ``(K, D)`` float32.
        weights: ``(K,)`` float32, sum 1.
        std: float.

    Raises:
        ValueError: if the numbers of weights and components differ.
    """

    def __init__(
        self,
        components: PositiveInt = 8,
        radius: float = 1.0,
        means: Sequence[Sequence[float]] | None = None,
        weights: Sequence[PositiveFloat] | None = None,
        std: PositiveFloat = 0.1,
        n_train: PositiveInt = 50_000,
        n_val: PositiveInt = 5_000,
        n_test: PositiveInt = 5_000,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        # torch does not accept the lists of OmegaConf
        self.means = (
            _circle(components, radius)
            if means is None
            else torch.tensor([list(point) for point in means], dtype=torch.float32)
        )
        self.weights = torch.ones(len(self.means)) if weights is None else torch.tensor([*weights])
        if len(self.weights) != len(self.means):
            raise ValueError(
                f"data.weights has {len(self.weights)} entries for {len(self.means)} components: "
                f"give one for each, or null for equal weights"
            )
        self.weights = self.weights / self.weights.sum()
        self.std = std
        self.sizes = {"train": n_train, "val": n_val, "test": n_test}

    @property
    def spec(self) -> DataSpec:
        """Continuous vectors; a class for each component."""
        components, dims = self.means.shape
        names = tuple(map(str, range(components)))
        return DataSpec((dims,), levels=None, num_classes=components, class_names=names)

    def read_split(self, name: SplitName) -> Examples:
        """Draw components, then vectors."""
        g = generator(0, 0, name)
        label = self.weights.multinomial(self.sizes[name], replacement=True, generator=g)
        noise = torch.randn(len(label), self.means.shape[1], generator=g)
        return TensorExamples(self.means[label] + self.std * noise, label)


def _circle(components: int, radius: float) -> Tensor:
    """(components, 2) points, the first on the positive x axis."""
    angle = torch.arange(components) * (2 * math.pi / components)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)
