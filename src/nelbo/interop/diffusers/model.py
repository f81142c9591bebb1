"""A pipeline of diffusers as a denoiser and its chain."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import X0, Eps, Parameterization, V
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.diffusers.folder import Folder, read_folder
from nelbo.interop.diffusers.names import to_our_names
from nelbo.interop.diffusers.schedule import DEFAULTS, DiffusersSchedule
from nelbo.interop.diffusers.settings import UNetSettings, read_settings
from nelbo.interop.diffusers.time import cosines_first, rotated, shift_of_table
from nelbo.interop.improved_diffusion.model import DiffusionModel

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"epsilon": Eps, "sample": X0, "v_prediction": V}
VARIANCES: dict[str, type[ReverseVariance]] = {
    "fixed_small": FixedSmall,
    "fixed_small_log": FixedSmall,  # the same variance, computed by way of its logarithm
    "fixed_large": FixedLarge,
    "learned_range": LearnedRange,
}
FIRST_LAYER = "unet.embedding.linear1.weight"


@dataclass(frozen=True)
class Read:
    """A pipeline, taken apart.

    Attributes:
        settings: of the network.
        weights: of a ``DiffusersUNet``.
        time_shift: of the denoiser.
        schedule: arguments of ``DiffusersSchedule``.
        parameterization: its class.
        variance: its class.
        first_step: of the variance.
    """

    settings: UNetSettings
    weights: dict[str, Tensor]
    time_shift: float
    schedule: dict[str, Any]
    parameterization: type[Parameterization]
    variance: type[ReverseVariance]
    first_step: str


def from_diffusers(folder: Path | str) -> DiffusionModel:
    """A ``DDPMPipeline`` that was saved in a folder, or downloaded into one.

    The chain is that of the ``DDPMScheduler``, in float64. Its last step adds no noise and so says nothing of
    the variance there, of which L_0 is made: it is beta_1, unless nelbo.json has another. How images are
    drawn (clipping, thresholding, fewer steps) is for the sampler to say.

        model = from_diffusers("ddpm-cifar10-32")
        bound = VariationalBound(model.chain, DiscretizedGaussian(256))

    Args:
        folder: with ``model_index.json``.

    Raises:
        ValueError: in one line, for a folder that is not such a pipeline or has what is not supported.
    """
    path = Path(folder)
    try:
        read = take_apart(read_folder(path))
        network = read.settings.network()
        schedule = DiffusersSchedule(**read.schedule)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    network.load_state_dict(read.weights)
    denoiser = Denoiser(
        network,
        read.parameterization(),
        read.variance(read.first_step),
        time_scale=1000.0 / schedule.num_steps,
        time_shift=read.time_shift,
    )
    return DiffusionModel(denoiser.eval(), Chain(schedule), read.settings.num_classes)


def take_apart(folder: Folder) -> Read:
    """What a pipeline is made of, in our words.

    Raises:
        ValueError: in one line, for what is not supported and for weights that do not fit.
    """
    try:
        return _take_apart(folder)
    except (
        TypeError,
        IndexError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # words for numbers, nothing for lists
        reason = str(error).splitlines()[0]
        raise ValueError(f"its configuration does not make sense: {reason}") from error


def _take_apart(folder: Folder) -> Read:
    scheduler, settings = folder.scheduler, read_settings(folder.unet)
    if scheduler.get("rescale_betas_zero_snr"):
        raise ValueError(
            "scheduler_config.json: rescale_betas_zero_snr leaves no signal at T: no bound is finite"
        )
    prediction = scheduler.get("prediction_type", "epsilon")
    variance = scheduler.get("variance_type", "fixed_small")
    if prediction not in PARAMETERIZATIONS:
        raise ValueError(f"scheduler_config.json: prediction_type={prediction} is not supported")
    if variance not in VARIANCES:
        raise ValueError(f"scheduler_config.json: variance_type={variance} is not supported")
    schedule = {name: scheduler.get(name, default) for name, default in DEFAULTS.items()}
    if not settings.has_table:  # the network counts timesteps, and a denoiser tells it 1000 / T for each
        factor = DiffusersSchedule(**schedule).num_steps / 1000.0
        settings = replace(settings, options=settings.options | {"time_factor": factor})
    channels = settings.shape[0] * VARIANCES[variance].channels
    if settings.out_channels != channels:
        raise ValueError(
            f"the network has {settings.out_channels} outputs, and variance_type={variance} needs {channels}"
        )
    weights = dict(folder.weights)
    table = weights.pop("time_proj.weight", None) if settings.has_table else None
    with torch.device("meta"):  # only its names and shapes matter
        network = settings.network()
    ours = {f"unet.{name}": tensor for name, tensor in to_our_names(weights, network.unet).items()}
    if not settings.cosines_first:
        ours[FIRST_LAYER] = cosines_first(ours[FIRST_LAYER])
    if settings.has_table:
        if table is None:
            raise ValueError("the weights do not fit unet/config.json: missing: time_proj.weight")
        time_shift = shift_of_table(table)
    else:  # as it was before it was written, if it was we who wrote it
        time_shift = float(folder.ours.get("time_shift", -1.0))
        max_period = network.unet.embedding.max_period
        ours[FIRST_LAYER] = rotated(ours[FIRST_LAYER], -(1.0 + time_shift), max_period)
    return Read(
        settings=settings,
        weights=ours,
        time_shift=time_shift,
        schedule=schedule,
        parameterization=PARAMETERIZATIONS[prediction],
        variance=VARIANCES[variance],
        first_step=str(folder.ours.get("first_step", "beta")),
    )
