"""Export of a model as a folder for ``diffusers.DDPMPipeline.from_pretrained``."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.interop.diffusers.folder import Folder, write_folder
from nelbo.interop.diffusers.model import PARAMETERIZATIONS, VARIANCES
from nelbo.interop.diffusers.names import to_their_names
from nelbo.interop.diffusers.schedule import describe_schedule
from nelbo.interop.diffusers.settings import describe_network
from nelbo.interop.diffusers.time import rotate, time_table
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.interop.diffusers.wrapped import WrappedUNet
from nelbo.models.unet import UNet

FIRST_LAYER = "time_embedding.linear_1.weight"


def to_diffusers(
    folder: Path,
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    sample_size: tuple[int, int],
    clip: float | None = 1.0,
    **metadata: Any,
) -> None:
    """Write a model as a pipeline of diffusers.

    The output of the network is equal at every timestep, up to rounding. With T = 1000, the time shift is
    folded into the first layer; with another T, the time embedding is a table of T rows (see ``time.py``).

    Args:
        folder: a new or empty folder.
        denoiser: the model.
        schedule: of all T timesteps.
        sample_size: height and width of the images.
        clip: the pipeline clamps x0_hat to [-clip, clip]; None for no clamping.
        metadata: plain values that are added to nelbo.json.

    Raises:
        ValueError: for a model that diffusers cannot represent, or a folder that is not empty.
        OSError: if the folder cannot be written.
    """
    # of the names of one class, the first is written
    predictions = {kind: name for name, kind in reversed(PARAMETERIZATIONS.items())}
    variances = {kind: name for name, kind in reversed(VARIANCES.items())}
    prediction = predictions.get(type(denoiser.parameterization))
    variance = variances.get(type(denoiser.variance))
    if prediction is None or variance is None:
        part = denoiser.variance if variance is None else denoiser.parameterization
        raise ValueError(f"DDPMScheduler of diffusers has no equivalent of {type(part).__name__}")
    config, weights = _describe(denoiser, schedule, sample_size)
    scheduler = describe_schedule(schedule) | {
        "variance_type": variance,
        "prediction_type": prediction,
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else clip,
        # ends at t = 1 with fewer steps too; DDPMScheduler adds noise to the result otherwise
        "timestep_spacing": "leading",
    }
    assert isinstance(denoiser.c_noise, TimestepConditioning), "checked by _describe"
    ours = {
        "time_shift": denoiser.c_noise.shift,
        "first_step": denoiser.variance.first_step,
        **metadata,
    }
    write_folder(folder, Folder(config, scheduler, weights, ours))


def _describe(
    denoiser: Denoiser, schedule: NoiseSchedule, sample_size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of the network with the names of diffusers."""
    network, c_noise = denoiser.network, denoiser.c_noise
    if schedule.num_steps is None or not isinstance(c_noise, TimestepConditioning):
        raise ValueError(
            "the schedulers of diffusers that are exported have timesteps 1..T, and this model is in "
            "continuous time or its network receives another function of the noise level"
        )
    if isinstance(network, WrappedUNet):
        if (c_noise.shift, c_noise.scale) != (-1.0, 1.0):
            raise ValueError("a network of diffusers can only be exported with its own 0-based timesteps")
        return dict(network.config), network.unet.state_dict()
    config = describe_network(network, sample_size)
    unet = network.unet if isinstance(network, DiffusersUNet) else network
    assert isinstance(unet, UNet), "checked by describe_network"
    weights = to_their_names(unet)
    scale = c_noise.scale
    if math.isclose(scale, 1.0, rel_tol=1e-12):
        config["time_embedding_type"] = "positional"
        shift = 1.0 + c_noise.shift  # relative to the 0-based time of diffusers
        weights[FIRST_LAYER] = rotate(weights[FIRST_LAYER], shift, unet.embedding.max_period)
    else:
        config |= {"time_embedding_type": "learned", "num_train_timesteps": schedule.num_steps}
        weights["time_proj.weight"] = time_table(
            schedule.num_steps, unet.embedding.dim, c_noise.shift, scale, unet.embedding.max_period
        )
    return config, weights
