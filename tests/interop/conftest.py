"""Conversion from our names of weights to those of improved-diffusion and guided-diffusion."""

from collections.abc import Callable, Mapping

import pytest
from torch import Tensor

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "embedding": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}


def their_state_dict(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    levels = 1 + max(int(name.split(".")[1]) for name in ours if name.startswith("down."))
    per_level = 1 + max(int(name.split(".")[3]) for name in ours if name.startswith("down.0.blocks."))
    places = {
        "embedding.linear1": "time_embed.0",
        "embedding.linear2": "time_embed.2",
        "embedding.label": "label_emb",
        "stem": "input_blocks.0.0",
        "middle.0.residual": "middle_block.0",
        "middle.0.attention": "middle_block.1",
        "middle.1.residual": "middle_block.2",
        "out.0": "out.0",
        "out.2": "out.2",
    }
    index = 1
    for level in range(levels):
        for block in range(per_level):
            places[f"down.{level}.blocks.{block}.residual"] = f"input_blocks.{index}.0"
            places[f"down.{level}.blocks.{block}.attention"] = f"input_blocks.{index}.1"
            index += 1
        places[f"down.{level}.downsample"] = f"input_blocks.{index}.0.op"
        index += 1
    for index in range(levels * (per_level + 1)):
        level, block = divmod(index, per_level + 1)
        places[f"up.{level}.blocks.{block}.residual"] = f"output_blocks.{index}.0"
        places[f"up.{level}.blocks.{block}.attention"] = f"output_blocks.{index}.1"
        attends = f"up.{level}.blocks.{block}.attention.qkv.weight" in ours
        places[f"up.{level}.upsample"] = f"output_blocks.{index}.{2 if attends else 1}.conv"  # the last block
    theirs = {}
    for name, tensor in ours.items():
        place = next(place for place in places if name.startswith(f"{place}."))
        *inner, kind = name.removeprefix(f"{place}.").split(".")
        names = ATTENTION if place.endswith("attention") else RESIDUAL
        is_attention_conv = place.endswith("attention") and tensor.ndim == 4
        theirs[".".join([places[place], *(names[part] for part in inner), kind])] = (
            tensor.squeeze(-1) if is_attention_conv else tensor
        )
    return theirs


@pytest.fixture(scope="session")
def to_their_names() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Converts the state dict of our U-Net to the names of improved-diffusion."""
    return their_state_dict


@pytest.fixture(scope="session")
def to_guided_names() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Converts the state dict of our U-Net without resblock_updown to the names of guided-diffusion."""
    return their_state_dict
