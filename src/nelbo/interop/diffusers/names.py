"""Names of weights: from our U-Net to ``UNet2DModel`` of diffusers, and back.

The layers correspond one to one, except in attention. Ours has one layer ``qkv`` with rows
[head][q, k, v][channel]; diffusers has three layers with rows [head][channel], ``to_q`` ... or, in older
files, ``query`` ...
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nelbo.interop.state_dict import differences
from nelbo.models.attention import SelfAttention
from nelbo.models.unet import UNet

# from our names to theirs; applied one after the other
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
    """The name of a weight in diffusers; ``qkv`` is left in place of ``to_q``, ``to_k``, ``to_v``."""
    for pattern, theirs in PATTERNS:
        name = re.sub(pattern, theirs, name)
    return name


def to_their_names(network: UNet) -> dict[str, Tensor]:
    """Copies of the weights of our U-Net in the layout of diffusers."""
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
    """The weights of a ``UNet2DModel`` in the layout of our U-Net, in float32.

    Args:
        state_dict: of diffusers, with old or new names of attention.
        network: of the same configuration; its weights are not read.

    Raises:
        ValueError: for missing or unexpected weights, or weights of another shape.
    """
    theirs = {current_name(name): tensor.float() for name, tensor in state_dict.items()}
    with torch.no_grad():
        check_weights(theirs, to_their_names(network))
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


def check_weights(weights: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of weights with those of a network.

    Raises:
        ValueError: for missing or unexpected weights, or weights of another shape.
    """
    found = differences(weights, network)
    if found:
        raise ValueError(f"the weights do not fit unet/config.json: {found}")


def _attention(network: UNet, name: str) -> SelfAttention | None:
    """The attention layer of a weight; None for other layers."""
    place, found, _ = name.partition(".attention.")
    module = network.get_submodule(f"{place}.attention") if found else None
    return module if isinstance(module, SelfAttention) else None


def current_name(name: str) -> str:
    """The name of a weight in current versions of diffusers."""
    found = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    return f"{found[1]}.{OLD.get(found[2], found[2])}.{found[3]}" if found else name
