"""Weights of OpenAI's improved-diffusion: a state dict of the network and nothing else.

The file does not say whether its weights are averaged. Its name does, if that project's training gave it, as
in ``ema_0.9999_500000.pt`` and ``model500000.pt``. Of any other file, the released ones among them, the
user's word is taken.
"""

import re
from pathlib import Path

from torch import Tensor

from nelbo.interop.file import is_state_dict, looks_like
from nelbo.interop.formats.base import CheckpointFormat, Weights
from nelbo.interop.improved_diffusion.names import unet_state_dict
from nelbo.interop.listed import listed

NAMES = {"ema": r"ema_[\d.]+_(\d+)\.pt", "raw": r"model(\d+)\.pt"}


class ImprovedDiffusionFormat(CheckpointFormat):
    """A state dict of improved-diffusion's network, whose timesteps begin at 0."""

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the file, if its name does not contradict the kind that is wanted."""
        if not isinstance(content, dict) or "time_embed.0.weight" not in content:
            raise ValueError(
                f"{path} is not a network of improved-diffusion; it looks like {looks_like(content)}"
            )
        if not is_state_dict(content):
            others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
            raise ValueError(f"{path} has more in it than weights: {listed(others)}")
        step = None
        for kind, pattern in NAMES.items():
            named = re.fullmatch(pattern, path.name)
            if named and kind != weights:
                raise ValueError(f"weights={weights}, but by its name {path} has others: use weights={kind}")
            step = int(named[1]) if named else step
        try:
            network = unet_state_dict(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return Weights(network=network, config=None, kind=weights, time_shift=-1.0, step=step)
