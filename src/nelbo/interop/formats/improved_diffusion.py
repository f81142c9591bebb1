"""Weights of OpenAI's improved-diffusion: a state dict of the network and nothing else.

The file does not say whether its weights are averaged. Its name does, if that project's training gave it, as
in ``ema_0.9999_500000.pt`` and ``model500000.pt``. Of any other file, the released ones among them, the
user's word is taken.
"""

import re
from pathlib import Path

from torch import Tensor

from nelbo.interop.file import is_state_dict, looks_like
from nelbo.interop.format_list import format_list
from nelbo.interop.formats.base import CheckpointFormat, Weights
from nelbo.interop.improved_diffusion.names import unet_state_dict
from nelbo.interop.wrapped import where_weights_are, without_wrappers

NAMES = {"ema": r"ema_[\d.]+_(\d+)\.pt", "raw": r"model(\d+)\.pt"}
FIRST_LAYER = "time_embed.0.weight"


class ImprovedDiffusionFormat(CheckpointFormat):
    """A state dict of improved-diffusion's network, whose timesteps begin at 0.

    Args:
        rescale_timesteps: the network was trained with t * 1000 / T, not t.
    """

    def __init__(self, rescale_timesteps: bool = True) -> None:
        self.rescale_timesteps = rescale_timesteps

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the file, if its name does not contradict the kind that is wanted."""
        state_dict = read_state_dict(content, path)
        step = step_by_name(path, weights)
        try:
            network = unet_state_dict(state_dict)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return Weights(
            network=network,
            config=None,
            kind=weights,
            time_shift=-1.0,
            step=step,
            time_scale=None if self.rescale_timesteps else 1.0,
        )


def read_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a file of improved-diffusion or guided-diffusion, without prefixes of wrappers.

    Raises:
        ValueError: for anything else; it says where the weights are, if the file has them inside.
    """
    content = without_wrappers(content)
    if not isinstance(content, dict) or FIRST_LAYER not in content:
        inside = where_weights_are(content, FIRST_LAYER)
        raise ValueError(
            f"{path} is not a network of improved-diffusion or guided-diffusion; "
            + (inside or f"it looks like {looks_like(content)}")
        )
    if not is_state_dict(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        raise ValueError(f"{path} has more in it than weights: {format_list(others)}")
    return content


def step_by_name(path: Path, weights: str) -> int | None:
    """The training step that the name of a file gives; None where it does not.

    Raises:
        ValueError: when the name says that these are the other kind of weights.
    """
    step = None
    for kind, pattern in NAMES.items():
        named = re.fullmatch(pattern, path.name)
        if named and kind != weights:
            raise ValueError(f"weights={weights}, but by its name {path} has others: use weights={kind}")
        step = int(named[1]) if named else step
    return step
