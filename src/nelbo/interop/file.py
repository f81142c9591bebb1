"""What is in a checkpoint file, without running any code that may be in it."""

from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from nelbo import torch_file
from nelbo.interop.format_list import format_list


def read_file(path: Path) -> object:
    """The verified content of a file that ``torch.save`` wrote, on the CPU.

    Raises:
        ValueError: when the file is missing, damaged, or would run code.
    """
    return torch_file.load(path)


def looks_like(content: object) -> str:
    """What the content of a file seems to be, in the words of an error message."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    if "nelbo" in content:
        return "a checkpoint of nelbo: use format=nelbo"
    if "time_embed.0.weight" in content:
        return "a network of improved-diffusion: use format=improved_diffusion"
    if "pytorch-lightning_version" in content:
        return "a Lightning checkpoint of another project"
    if content.keys() == {"state", "param_groups"}:
        return "the state of an optimizer"
    return f"a dictionary of {format_list(map(str, content), 3)}"


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether it is a dictionary of tensors, and not an empty one."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(value, Tensor) for value in content.values())
    )
