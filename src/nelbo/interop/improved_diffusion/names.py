"""Names of weights: from improved-diffusion and guided-diffusion to ours.

The U-Nets correspond layer by layer. Theirs has two flat lists of blocks, ``input_blocks`` and
``output_blocks``, with one entry per skip connection: the stem, a residual block (0) with attention (1) and
upsampling (the last), or a downsampling. With ``resblock_updown`` (guided-diffusion), up- and downsampling
are residual blocks too, identified by their position in the list.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from nelbo.interop.state_dict import format_list

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "embedding",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}


def unet_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ``UNetModel`` of these projects to those of ``nelbo.models.unet.UNet``.

    Args:
        state_dict: Content of a released checkpoint; not modified.

    Returns:
        A state dict for a ``UNet`` of the same configuration. The tensors share memory with those given.

    Raises:
        ValueError: For another state dict; the message has the missing and unexpected names.
    """
    layers = _layers({key.rpartition(".")[0] for key in state_dict})
    expected = {f"{theirs}.{kind}" for theirs in layers for kind in ("weight", "bias")}
    expected.discard("label_emb.bias")  # an embedding has none
    missing, unexpected = expected - state_dict.keys(), state_dict.keys() - expected
    if missing or unexpected:
        raise ValueError(
            "not the weights of a U-Net of improved-diffusion or guided-diffusion: "
            f"missing {format_list(missing)}; unexpected {format_list(unexpected)}"
        )
    renamed = {}
    for key, tensor in state_dict.items():
        theirs, _, kind = key.rpartition(".")
        # their attention has 1-d convolutions over the flattened map, ours 1x1 convolutions
        renamed[f"{layers[theirs]}.{kind}"] = tensor.unsqueeze(-1) if tensor.ndim == 3 else tensor
    return renamed


def _layers(given: set[str]) -> dict[str, str]:
    """Map their names of layers to ours, for all layers of the network that has the layers ``given``."""
    layers = {
        "time_embed.0": "embedding.linear1",
        "time_embed.2": "embedding.linear2",
        "input_blocks.0.0": "stem",
        "out.0": "out.0",
        "out.2": "out.2",
    }
    if "label_emb" in given:
        layers["label_emb"] = "embedding.label"

    # every input block is a skip connection into an output block: there are as many of both
    indices = (re.match(r"(?:in|out)put_blocks\.(\d+)\.", layer) for layer in given)
    length = 1 + max((int(match[1]) for match in indices if match), default=0)
    blocks_up = [layer for layer in given if re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.0", layer)]
    # both lists have equally many entries per level; in the encoder, the first one is a downsampling
    per_level = length // (1 + len(blocks_up)) if blocks_up else 0

    level = block = 0
    for index in range(1, length):
        theirs = f"input_blocks.{index}"
        if f"{theirs}.0.op" in given:
            layers[f"{theirs}.0.op"] = f"down.{level}.downsample"
            level, block = level + 1, 0
        elif per_level and index % per_level == 0:
            layers |= _renamed(_RESIDUAL, f"{theirs}.0", f"down.{level}.downsample")
            level, block = level + 1, 0
        else:
            layers |= _block(theirs, f"down.{level}.blocks.{block}", given)
            block += 1

    layers |= _renamed(_RESIDUAL, "middle_block.0", "middle.0.residual")
    layers |= _renamed(_ATTENTION, "middle_block.1", "middle.0.attention")
    layers |= _renamed(_RESIDUAL, "middle_block.2", "middle.1.residual")

    level = block = 0
    for index in range(length):
        theirs = f"output_blocks.{index}"
        layers |= _block(theirs, f"up.{level}.blocks.{block}", given)
        block += 1
        for upsample in (f"{theirs}.1", f"{theirs}.2"):
            if f"{upsample}.conv" in given:
                layers[f"{upsample}.conv"] = f"up.{level}.upsample"
            elif f"{upsample}.in_layers.0" in given:
                layers |= _renamed(_RESIDUAL, upsample, f"up.{level}.upsample")
            else:
                continue
            level, block = level + 1, 0

    # a residual block has this layer only where it changes the number of channels
    return {
        theirs: ours
        for theirs, ours in layers.items()
        if theirs in given or not theirs.endswith(".skip_connection")
    }


def _block(theirs: str, ours: str, given: set[str]) -> dict[str, str]:
    layers = _renamed(_RESIDUAL, f"{theirs}.0", f"{ours}.residual")
    if f"{theirs}.1.qkv" in given:
        layers |= _renamed(_ATTENTION, f"{theirs}.1", f"{ours}.attention")
    return layers


def _renamed(names: dict[str, str], theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{ours}.{new_name}" for name, new_name in names.items()}
