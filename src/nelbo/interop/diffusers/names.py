"""The weights of our U-Net under diffusers' names, and back.

The two are one network layer by layer. Ours has queries, keys and values in one layer of rows laid out
[head][q, k, v][channel]; diffusers has three layers of rows [head][channel], called ``to_q`` ... or, in older
files, ``query`` ...
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nelbo.interop.format_list import format_list
from nelbo.models.attention import SelfAttention
from nelbo.models.unet import UNet

# from our names to theirs; every pattern rewrites what it is for and leaves the rest
PATTERNS = [
    (r"^embedding\.linear(\d)\.", r"time_embedding.linear_\1."),
    (r"^embedding\.label\.", r"class_embedding."),
    (r"^stem\.", "conv_in."),
    (r"^out\.0\.", "conv_norm_out."),
    (r"^out\.2\.", "conv_out."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.residual\.", r"\1_blocks.\2.resnets.\3."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.attention\.", r"\1_blocks.\2.attentions.\3."),
    (r"^(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0.conv."),
    (r"^middle\.(\d)\.residual\.", r"mid_block.resnets.\1."),
    (r"^middle\.0\.attention\.", "mid_block.attentions.0."),
    (r"(resnets\.\d+)\.embedding\.", r"\1.time_emb_proj."),
    (r"(resnets\.\d+)\.skip\.", r"\1.conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.out\.", r"\1.to_out.0."),
]
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
QKV = ("to_q", "to_k", "to_v")


def their_name(name: str) -> str:
    """diffusers' name of a weight of ours; of ``qkv`` it is the place that three weights share."""
    for pattern, theirs in PATTERNS:
        name = re.sub(pattern, theirs, name)
    return name


def to_their_names(network: UNet) -> dict[str, Tensor]:
    """The weights of our U-Net as diffusers has them; copies."""
    theirs = {}
    for name, tensor in network.state_dict().items():
        new_name = their_name(name)
        module = _attention(network, name)
        if module is not None and ".qkv." in name:
            rows = tensor.flatten(1) if tensor.ndim == 4 else tensor
            parts = rows.unflatten(0, (module.num_heads, 3, -1)).unbind(1)
            for part, own in zip(parts, QKV, strict=True):
                theirs[new_name.replace(".qkv.", f".{own}.")] = part.flatten(0, 1).clone()
        elif module is not None and ".out." in name and tensor.ndim == 4:
            theirs[new_name] = tensor.flatten(1).clone()
        else:
            theirs[new_name] = tensor.clone()
    return theirs


def to_our_names(state_dict: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """The weights of a ``UNet2DModel`` as our U-Net has them, in float32.

    Args:
        state_dict: theirs, with old or new names of attention.
        network: of the same configuration; its weights do not matter.

    Raises:
        ValueError: naming what is missing, left over, or of another shape.
    """
    theirs = {current_name(name): tensor.float() for name, tensor in state_dict.items()}
    check_names_and_shapes(theirs, _their_shapes(network))
    ours = {}
    for name, tensor in network.state_dict().items():
        new_name = their_name(name)
        module = _attention(network, name)
        if module is not None and ".qkv." in name:
            parts = [theirs[new_name.replace(".qkv.", f".{own}.")] for own in QKV]
            rows = [part.unflatten(0, (module.num_heads, -1)) for part in parts]
            ours[name] = torch.stack(rows, dim=1).flatten(0, 2).reshape(tensor.shape)
        else:
            ours[name] = theirs[new_name].reshape(tensor.shape)
    return ours


def check_names_and_shapes(weights: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Compare weights with those of a network.

    Raises:
        ValueError: naming what is missing, left over, or of another shape.
    """
    expected = {name: list(tensor.shape) for name, tensor in network.items()}
    given = {name: list(tensor.shape) for name, tensor in weights.items()}
    problems = {
        "missing": expected.keys() - given.keys(),
        "left over": given.keys() - expected.keys(),
        "of another shape": {
            f"{name} {given[name]} for {expected[name]}"
            for name in given.keys() & expected.keys()
            if given[name] != expected[name]
        },
    }
    found = "; ".join(f"{what}: {format_list(names, 3)}" for what, names in problems.items() if names)
    if found:
        raise ValueError(f"the weights do not fit unet/config.json: {found}")


def _their_shapes(network: UNet) -> dict[str, Tensor]:
    with torch.no_grad():
        return to_their_names(network)


def _attention(network: UNet, name: str) -> SelfAttention | None:
    """The attention that a weight belongs to."""
    place, found, _ = name.partition(".attention.")
    module = network.get_submodule(f"{place}.attention") if found else None
    return module if isinstance(module, SelfAttention) else None


def current_name(name: str) -> str:
    """A weight's name as diffusers has it now."""
    found = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    return f"{found[1]}.{OLD.get(found[2], found[2])}.{found[3]}" if found else name
