"""The base of all features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.spec import DataSpec


@dataclass(frozen=True)
class MetricNames:
    """What the metrics on some features are called.

    Attributes:
        frechet: the Frechet distance.
        kernel: the kernel distance, a squared MMD.
        precision: share of samples that look like data.
        recall: share of the data that looks like samples.
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
    """A function of single examples. Whatever it needs is loaded when it is made, so that mistakes show then.

    Attributes:
        names: of the metrics on these features.
        key: one line, its first word a short name, that no other features have; with it what was measured
            on the data is kept.
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
        """F, for examples of a kind: found by trying.

        Raises:
            ValueError: when there are no such features of such examples.
        """
        return self(torch.zeros(1, *spec.shape)).shape[1]


def to_uint8(x: Tensor) -> Tensor:
    """Values (B, C, H, W) in [-1, 1] as uint8 pixels, for networks that take these; exact for 256 levels."""
    return (127.5 * (x + 1.0)).round().clamp(0, 255).to(torch.uint8)
