"""Weights of OpenAI's guided-diffusion: a state dict of the network.

The flags of that project determine network, schedule, parameterization and variance, and the user names an
experiment for data and decoder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nelbo.diffusion.parameterizations import X0, Eps
from nelbo.interop.formats.base import (
    CheckpointFormat,
    Weights,
    component,
    network_parts,
    process_parts,
    timestep_conditioning,
)
from nelbo.interop.formats.improved_diffusion import read_state_dict, step_by_name
from nelbo.interop.improved_diffusion.flags import SCHEDULES, GuidedFlags, check_named, read_flags
from nelbo.interop.improved_diffusion.model import (
    FIRST_STEP,
    read_weights,
    reverse_variance,
    time_scale,
    unet_options,
)
from nelbo.models.unet import UNet


class GuidedDiffusionFormat(CheckpointFormat):
    """A state dict of the network of guided-diffusion, with 0-based timesteps.

    Args:
        flags: flags of that project's scripts, see :class:`GuidedFlags`; null for its default.
    """

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.flags = {name: value for name, value in flags.items() if value is not None}

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights of the file, if they agree with the flags and with its name."""
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
            step=step,
            parts=parts(flags),
        )


def parts(flags: GuidedFlags) -> dict[str, Any]:
    """The configuration nodes that the flags determine."""
    schedule = SCHEDULES[flags.noise_schedule]
    c_noise = timestep_conditioning(time_scale(flags), shift=-1.0)
    return network_parts(component(UNet, **unet_options(flags)), flags.class_cond, c_noise) | process_parts(
        component(schedule, num_steps=flags.diffusion_steps, logsnr_max="paper"),
        component(X0 if flags.predict_xstart else Eps),
        component(type(reverse_variance(flags)), first_step=FIRST_STEP),
    )
