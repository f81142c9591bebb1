"""Checkpoint formats: from a file to the weights of a network, under our names."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.interop.file import read_file

KINDS = ("ema", "raw")


@dataclass(frozen=True)
class Weights:
    """The weights of a trained network, and what its file says of them.

    Attributes:
        network: state dict of the network alone, under our names.
        config: the configuration it was trained with; None where the file does not have it, and the user must
            name an experiment.
        kind: ``ema``, averaged over training, or ``raw``, as the optimizer left them.
        time_shift: of the ``Denoiser``: what the network was told at timestep t in 1..T, less t.
        step: optimizer steps of training; None where the file does not say.
        parts: nodes of the configuration that the file says although it has no whole one; they stand in for
            those of the experiment.
        data: record of the data that it was trained on, see ``DataRecord``; None where the file has none.
        time_scale: of the ``Denoiser``; None for 1000 / T.
    """

    network: dict[str, Tensor]
    config: dict[str, Any] | None
    kind: str
    time_shift: float
    step: int | None
    parts: dict[str, Any] = field(default_factory=dict)
    data: object = None
    time_scale: float | None = None


class CheckpointFormat(ABC):
    """A kind of checkpoint file."""

    def read(self, path: Path, weights: str) -> Weights:
        """Read the weights of a checkpoint; tensors and plain values only, never code.

        A configuration among these values names the classes that make up the model, your own with them, and
        they are called when it is built. So a checkpoint of ``train.py`` is to be trusted like a program;
        of what came from a hub, only components of this package are taken.

        Args:
            path: of the file, or the folder.
            weights: which ones, ``ema`` or ``raw``.

        Raises:
            ValueError: for other ``weights`` or such as are not in the file, and for a file that is
                missing, damaged, of another format, or has code in it.
        """
        if weights not in KINDS:
            raise ValueError(f"weights={weights}: expected one of {', '.join(KINDS)}")
        return self.pick(self.content(path), path, weights)

    def content(self, path: Path) -> object:
        """What is at ``path``: of a file, unless a format is a folder.

        Raises:
            ValueError: when it is missing, damaged, or has code in it.
        """
        return read_file(path)

    @abstractmethod
    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights in what a file holds.

        Args:
            content: of the file.
            path: of the file, for its name and for messages.
            weights: which ones, ``ema`` or ``raw``.

        Raises:
            ValueError: when the content is not of this format, or does not have these weights.
        """


def component(of: type, **arguments: Any) -> dict[str, Any]:
    """The node of a configuration that builds an object of a class."""
    return {"_target_": f"{of.__module__}.{of.__qualname__}", **arguments}
