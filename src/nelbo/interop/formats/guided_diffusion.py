"""Weights of OpenAI's guided-diffusion: a state dict of the network and nothing else.

Network, schedule, parameterization and variance follow from the flags of that project, and the user names an
experiment for the rest: the data, the decoder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nelbo.diffusion.losses import VLB
from nelbo.diffusion.parameterizations import X0, Eps
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.interop.formats.base import CheckpointFormat, Weights, component
from nelbo.interop.formats.improved_diffusion import read_state_dict, step_by_name
from nelbo.interop.improved_diffusion.flags import GuidedFlags, check_named, read_flags
from nelbo.interop.improved_diffusion.model import (
    FIRST_STEP,
    read_weights,
    reverse_variance,
    time_scale,
    unet_options,
)
from nelbo.models.unet import UNet


class GuidedDiffusionFormat(CheckpointFormat):
    """A state dict of guided-diffusion's network, whose timesteps begin at 0.

    Args:
        flags: of that project's scripts, see :class:`GuidedFlags`; null for those that are not named.
    """

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.flags = {name: value for name, value in flags.items() if value is not None}

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the file, if they fit the flags and its name does not contradict their kind."""
        state_dict = read_state_dict(content, path)
        step = step_by_name(path, weights)
        try:
            check_named(self.flags)
            flags = read_flags(self.flags, GuidedFlags)
            network = read_weights(state_dict, flags)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return Weights(
            network=network,
            config=None,
            kind=weights,
            time_shift=-1.0,
            step=step,
            parts=parts(flags),
            time_scale=time_scale(flags),
        )


def parts(flags: GuidedFlags) -> dict[str, Any]:
    """The nodes of a configuration that follow from the flags."""
    schedule = LinearSchedule if flags.noise_schedule == "linear" else CosineSchedule
    return {
        "model": component(UNet, **unet_options(flags)),
        "conditional": flags.class_cond,
        "label_dropout": 0.0,
        "schedule": component(schedule, num_steps=flags.diffusion_steps, logsnr_max="paper"),
        "parameterization": component(X0 if flags.predict_xstart else Eps),
        "variance": component(type(reverse_variance(flags)), first_step=FIRST_STEP),
        "loss": component(VLB),  # not evaluated; it fits every variance
    }
