"""Checkpoint formats: from a file to the weights of a network, with our names."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo import torch_file
from nelbo.diffusion.losses import VLB
from nelbo.diffusion.noise_conditioning import TimestepConditioning

KINDS = ("ema", "raw")


@dataclass(frozen=True)
class Weights:
    """The weights of a trained network, and the metadata of their file.

    Attributes:
        network: state dict of the network, with our names.
        config: training configuration; None if the file has none, and the user has to name an experiment.
        kind: ``ema`` (averaged), ``ema_<sigma_rel>`` (an average of another length), or ``raw``.
        step: optimizer steps of training; None if unknown.
        parts: nodes of the configuration that a file without ``config`` determines; they replace those of the
            experiment.
        data: record of the training data, see ``DataRecord``; None if the file has none.
        schedule: state dict of a learned schedule; empty for others.
    """

    network: dict[str, Tensor]
    config: dict[str, Any] | None
    kind: str
    step: int | None
    parts: dict[str, Any] = field(default_factory=dict)
    data: object = None
    schedule: dict[str, Tensor] = field(default_factory=dict)


class CheckpointFormat(ABC):
    """A kind of checkpoint file."""

    def read(self, path: Path, weights: str) -> Weights:
        """Read the weights of a checkpoint. Only tensors and plain values are read, never code.

        The configuration in a checkpoint names the classes of the model, which are called when it is built;
        ``compose.stored_config`` decides which ones are allowed.

        Args:
            path: of the file or folder.
            weights: ``ema`` or ``raw``.

        Raises:
            ValueError: for unknown or missing ``weights``, and for a file that is missing, damaged, of
                another format, or contains code.
        """
        if weights not in KINDS:
            raise ValueError(f"weights={weights}: expected one of {', '.join(KINDS)}")
        return self.pick(self.content(path), path, weights)

    def content(self, path: Path) -> object:
        """The content of a file of ``torch.save``; formats of folders override this.

        Raises:
            ValueError: if the file is missing, damaged, or contains code.
        """
        return torch_file.load(path)

    @abstractmethod
    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """Select the weights from the content of a file.

        Args:
            content: of the file.
            path: of the file, for messages and formats with metadata in the name.
            weights: ``ema`` or ``raw``.

        Raises:
            ValueError: if the content is of another format, or lacks these weights.
        """


def component(of: type, **arguments: Any) -> dict[str, Any]:
    """The configuration node of an object of a class."""
    return {"_target_": f"{of.__module__}.{of.__qualname__}", **arguments}


def network_parts(model: dict[str, Any], conditional: bool, c_noise: dict[str, Any]) -> dict[str, Any]:
    """The configuration nodes of a network."""
    return {"model": model, "conditional": conditional, "cond_dropout": 0.0, "c_noise": c_noise}


def timestep_conditioning(scale: float | None, shift: float) -> dict[str, Any]:
    """The configuration node of c_noise = (t + shift) * scale; None: 1000 / T."""
    return component(TimestepConditioning, shift=shift, **({} if scale is None else {"scale": scale}))


def process_parts(
    schedule: dict[str, Any], parameterization: dict[str, Any], variance: dict[str, Any]
) -> dict[str, Any]:
    """The configuration nodes of a diffusion process."""
    parts = {"schedule": schedule, "parameterization": parameterization, "variance": variance}
    return parts | {"loss": component(VLB)}  # not evaluated; VLB supports all variances
