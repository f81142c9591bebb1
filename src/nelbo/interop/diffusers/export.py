"""A model of ours as a folder that ``diffusers.DDPMPipeline.from_pretrained`` opens and samples from."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import X0, Eps, Parameterization, V
from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.diffusers.folder import Folder, write_folder
from nelbo.interop.diffusers.names import to_their_names
from nelbo.interop.diffusers.schedule import describe_schedule
from nelbo.interop.diffusers.settings import describe_network
from nelbo.interop.diffusers.time import rotated, time_table
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.interop.diffusers.wrapped import WrappedUNet
from nelbo.models.unet import UNet

PREDICTIONS: dict[type[Parameterization], str] = {Eps: "epsilon", X0: "sample", V: "v_prediction"}
VARIANCES: dict[type[ReverseVariance], str] = {
    FixedSmall: "fixed_small",
    FixedLarge: "fixed_large",
    LearnedRange: "learned_range",
}
FIRST_LAYER = "time_embedding.linear_1.weight"


def to_diffusers(
    folder: Path,
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    sample_size: tuple[int, int],
    clip: float | None = 1.0,
    **about: Any,
) -> None:
    """Write a model as a pipeline of diffusers.

    The network's output is the same for every timestep, up to rounding. With T = 1000 its time is diffusers'
    own, folded into the first layer; with another T it is a table of T rows (see ``time.py``).

    Args:
        folder: new, or empty.
        denoiser: the model.
        schedule: of all its T timesteps.
        sample_size: height and width of the images.
        clip: x0_hat is kept in [-clip, clip] when the pipeline samples; None to leave it.
        about: what else is to be found in nelbo.json, plain values.

    Raises:
        ValueError: for a model that diffusers has no equal of, and a folder that is in use.
        OSError: when the folder cannot be written.
    """
    prediction = PREDICTIONS.get(type(denoiser.parameterization))
    variance = VARIANCES.get(type(denoiser.variance))
    if prediction is None or variance is None:
        part = denoiser.variance if variance is None else denoiser.parameterization
        raise ValueError(f"DDPMScheduler of diffusers has no equal of {type(part).__name__}")
    config, weights = _describe(denoiser, schedule, sample_size)
    scheduler = describe_schedule(schedule) | {
        "variance_type": variance,
        "prediction_type": prediction,
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else clip,
        # with fewer steps this still ends at t = 1, and DDPMScheduler adds noise to data that ends elsewhere
        "timestep_spacing": "leading",
    }
    ours = {
        "time_shift": denoiser.time_shift,
        "first_step": denoiser.variance.first_step,
        **about,
    }
    write_folder(folder, Folder(config, scheduler, weights, ours))


def _describe(
    denoiser: Denoiser, schedule: NoiseSchedule, sample_size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of the network under diffusers' names."""
    network = denoiser.network
    if isinstance(network, WrappedUNet):
        if (denoiser.time_shift, denoiser.time_scale) != (-1.0, 1.0):
            raise ValueError("a network of diffusers is only written with its own 0-based timesteps")
        return dict(network.config), network.unet.state_dict()
    config = describe_network(network, sample_size)
    unet = network.unet if isinstance(network, DiffusersUNet) else network
    assert isinstance(unet, UNet), "describe_network has seen to it"
    weights = to_their_names(unet)
    scale = denoiser.time_scale
    if math.isclose(scale, 1.0, rel_tol=1e-12):
        config["time_embedding_type"] = "positional"
        later = 1.0 + denoiser.time_shift  # than diffusers' time, which begins with 0
        weights[FIRST_LAYER] = rotated(weights[FIRST_LAYER], later, unet.embedding.max_period)
    else:
        config |= {"time_embedding_type": "learned", "num_train_timesteps": schedule.num_steps}
        weights["time_proj.weight"] = time_table(
            schedule.num_steps, unet.embedding.dim, denoiser.time_shift, scale, unet.embedding.max_period
        )
    return config, weights
