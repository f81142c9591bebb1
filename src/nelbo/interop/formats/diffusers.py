"""Pipelines of Hugging Face's diffusers: a folder, or the name of a model on the hub.

A folder that ``python -m nelbo export`` wrote brings the configuration it was trained with. Of another one,
network, schedule, parameterization and variance are known, and the user names an experiment for the rest:
the data, the decoder.
"""

from pathlib import Path
from typing import Any

from nelbo.diffusion.losses import VLB
from nelbo.interop.diffusers.folder import Folder, read_folder
from nelbo.interop.diffusers.hub import fetch, is_name
from nelbo.interop.diffusers.model import Read, take_apart
from nelbo.interop.diffusers.schedule import DiffusersSchedule
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.interop.formats.base import CheckpointFormat, Weights, component

INSIDE = "unet."  # the place of our U-Net in one of diffusers


class DiffusersFormat(CheckpointFormat):
    """A pipeline, or a network alone, of ``UNet2DModel``."""

    def content(self, path: Path) -> object:
        """What is in the folder; it is fetched when there is none, and its name could be one on the hub."""
        return read_folder(fetch(path.as_posix()) if not path.exists() and is_name(path.as_posix()) else path)

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the folder, if it does not say that they are of the other kind."""
        assert isinstance(content, Folder), "what content() gives"
        content = content.chosen(weights)
        kind, config = content.ours.get("weights", weights), content.ours.get("config")
        if kind != weights:
            raise ValueError(f"weights={weights}, but {path} says that it has others: use weights={kind}")
        try:
            read = take_apart(content)
            if config is not None and read.network.kind is not DiffusersUNet:
                raise ValueError(
                    "nelbo.json has a configuration for a network that is not the one of unet/config.json"
                )
            if not isinstance(config, dict | None):
                raise ValueError("the configuration in nelbo.json is none")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        network = read.network.weights
        if config is not None:  # then it names a U-Net of ours
            network = {name.removeprefix(INSIDE): tensor for name, tensor in network.items()}
        return Weights(
            network=network,
            config=config,
            kind=kind,
            time_shift=read.network.time_shift,
            step=content.ours.get("step"),
            parts={} if config is not None else parts(read),
            time_scale=None if config is not None else read.network.time_scale,
            data=content.ours.get("data"),
        )


def parts(read: Read) -> dict[str, Any]:
    """The nodes of a configuration that the folder itself says."""
    network = {
        "model": component(read.network.kind, **read.network.options),
        "conditional": read.network.num_classes is not None,
        "label_dropout": 0.0,
    }
    if read.chain is None:
        return network
    return network | {
        "schedule": component(DiffusersSchedule, **read.chain.schedule),
        "parameterization": component(read.chain.parameterization),
        "variance": component(read.chain.variance, first_step=read.chain.first_step),
        "loss": component(VLB),  # not evaluated; it fits every variance
    }
