"""Weights of OpenAI's improved-diffusion: a state dict of the network.

Names given by the training script of that project, such as ``ema_0.9999_500000.pt`` and ``model500000.pt``,
show whether the weights are averaged. For other names, the released files among them, ``weights=`` decides.
"""

import re
from pathlib import Path

from torch import Tensor

from nelbo.interop.formats.base import CheckpointFormat, Weights, timestep_conditioning
from nelbo.interop.improved_diffusion.names import unet_state_dict
from nelbo.interop.state_dict import (
    format_list,
    is_state_dict,
    looks_like,
    where_weights_are,
    without_wrappers,
)

NAMES = {"ema": r"ema_[\d.]+_(\d+)\.pt", "raw": r"model(\d+)\.pt"}
FIRST_LAYER = "time_embed.0.weight"


class ImprovedDiffusionFormat(CheckpointFormat):
    """A state dict of the network of improved-diffusion, with 0-based timesteps.

    Args:
        rescale_timesteps: whether the network was trained with t * 1000 / T instead of t.
    """

    def __init__(self, rescale_timesteps: bool = True) -> None:
        self.rescale_timesteps = rescale_timesteps

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the file, if they agree with its name."""
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
            step=step,
            parts={"c_noise": timestep_conditioning(None if self.rescale_timesteps else 1.0, shift=-1.0)},
        )


def read_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict of a file of improved-diffusion or guided-diffusion, without prefixes of wrappers.

    Raises:
        ValueError: for other content; if it contains such a network, the message shows how to extract it.
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
    """The training step in the name of a file; None if there is none.

    Raises:
        ValueError: if the name shows the other kind of weights.
    """
    step = None
    for kind, pattern in NAMES.items():
        named = re.fullmatch(pattern, path.name)
        if named and kind != weights:
            raise ValueError(
                f"weights={weights}, but by its name {path} has the other kind: use weights={kind}"
            )
        step = int(named[1]) if named else step
    return step
