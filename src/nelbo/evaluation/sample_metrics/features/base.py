"""Base class of features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.spec import DataSpec


@dataclass(frozen=True)
class MetricNames:
    """Names of the metrics of some features.

    Attributes:
        frechet: the Frechet distance.
        kernel: the kernel distance, a squared MMD.
        precision: share of the samples inside the manifold of the data.
        recall: share of the data inside the manifold of the samples.
    """

    frechet: str
    kernel: str
    precision: str
    recall: str

    @classmethod
    def of(cls, name: str) -> "MetricNames":
        """``fd_<name>``, ``mmd_<name>``, ``precision_<name>``, ``recall_<name>``."""
        return cls(f"fd_{name}", f"mmd_{name}", f"precision_{name}", f"recall_{name}")


class Features(ABC):
    """A function of single examples. The constructor loads all files, so that errors occur early.

    Attributes:
        names: of the metrics of these features.
        key: one line that identifies the features in the cache; its first word is a short name.
    """

    names: MetricNames
    key: str

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Features (B, F) on the device of their examples.

        Args:
            x: (B, *shape) float32 values, of quantised data on its levels in [-1, 1].
        """

    def dims(self, spec: DataSpec) -> int:
        """F, found by evaluating one example of zeros.

        Raises:
            ValueError: for examples without such features.
        """
        return self(torch.zeros(1, *spec.shape)).shape[1]


def to_uint8(x: Tensor) -> Tensor:
    """Values (B, C, H, W) in [-1, 1] as uint8 pixels; exact for 256 levels."""
    return (127.5 * (x + 1.0)).round().clamp(0, 255).to(torch.uint8)
