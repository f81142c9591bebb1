"""Pipelines of Hugging Face's diffusers: a folder, or the name of a model on the hub.

A folder of ``python -m nelbo export`` contains the training configuration. Other folders determine network,
schedule, parameterization and variance, and the user names an experiment for data and decoder.
"""

from pathlib import Path
from typing import Any

from nelbo.interop.diffusers.folder import Folder, read_folder
from nelbo.interop.diffusers.hub import fetch, is_name
from nelbo.interop.diffusers.model import ParsedFolder, parse_folder
from nelbo.interop.diffusers.schedule import DiffusersSchedule
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.interop.formats.base import (
    CheckpointFormat,
    Weights,
    component,
    network_parts,
    process_parts,
    timestep_conditioning,
)

INSIDE = "unet."  # prefix of our U-Net in a DiffusersUNet


class DiffusersFormat(CheckpointFormat):
    """A pipeline with a ``UNet2DModel``, or a ``UNet2DModel`` alone."""

    def content(self, path: Path) -> object:
        """The content of the folder; without a folder, a valid name is downloaded from the hub."""
        return read_folder(fetch(path.as_posix()) if not path.exists() and is_name(path.as_posix()) else path)

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the folder, unless it declares the other kind."""
        assert isinstance(content, Folder)
        content = content.chosen(weights)
        kind, config = content.ours.get("weights", weights), content.ours.get("config")
        if kind != weights:
            raise ValueError(f"weights={weights}, but {path} has the other kind: use weights={kind}")
        try:
            parsed = parse_folder(content)
            if config is not None and parsed.network.kind is not DiffusersUNet:
                raise ValueError("the configuration in nelbo.json does not agree with unet/config.json")
            if not isinstance(config, dict | None):
                raise ValueError("the configuration in nelbo.json is not a mapping")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        network = parsed.network.weights
        if config is not None:  # of our U-Net, without the wrapper
            network = {name.removeprefix(INSIDE): tensor for name, tensor in network.items()}
        return Weights(
            network=network,
            config=config,
            kind=kind,
            step=content.ours.get("step"),
            parts={} if config is not None else parts(parsed),
            data=content.ours.get("data"),
        )


def parts(parsed: ParsedFolder) -> dict[str, Any]:
    """The configuration nodes that the folder determines."""
    network, chain = parsed.network, parsed.chain
    nodes = network_parts(
        component(network.kind, **network.options),
        network.num_classes is not None,
        timestep_conditioning(network.time_scale, network.time_shift),
    )
    if chain is None:
        return nodes
    return nodes | process_parts(
        component(DiffusersSchedule, **chain.schedule),
        component(chain.parameterization),
        component(chain.variance, first_step=chain.first_step),
    )
