"""A pipeline of diffusers as a denoiser and its chain."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import X0, Eps, Parameterization, V
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.diffusers.folder import Folder, read_folder
from nelbo.interop.diffusers.names import check_names_and_shapes, current_name, to_our_names
from nelbo.interop.diffusers.schedule import DEFAULTS as SCHEDULE
from nelbo.interop.diffusers.schedule import DiffusersSchedule
from nelbo.interop.diffusers.settings import (
    DEFAULTS,
    UNetSettings,
    known_options,
    read_settings,
    sample_size,
)
from nelbo.interop.diffusers.time import cosines_first, rotated, shift_of_table
from nelbo.interop.diffusers.unet import DiffusersUNet, UnsupportedError
from nelbo.interop.diffusers.wrapped import WrappedUNet
from nelbo.interop.improved_diffusion.model import DiffusionModel

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"epsilon": Eps, "sample": X0, "v_prediction": V}
VARIANCES: dict[str, type[ReverseVariance]] = {
    "fixed_small": FixedSmall,
    "fixed_small_log": FixedSmall,  # the same variance, computed by way of its logarithm
    "fixed_large": FixedLarge,
    "fixed_large_log": FixedLarge,
    "learned_range": LearnedRange,
}
FIRST_LAYER = "unet.embedding.linear1.weight"
# whose defaults are DEFAULTS; another scheduler must say its betas
WITH_DEFAULTS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")


@dataclass(frozen=True)
class ReadNetwork:
    """The network of a folder.

    Attributes:
        kind: its class; ours where it computes the same, else the one that wraps diffusers' own.
        options: of ``kind``.
        shape: of one image, (C, H, W).
        out_channels: of the output.
        num_classes: of a class-conditional network, None for another.
        weights: its state dict.
        time_shift: of the denoiser.
        time_scale: of the denoiser; None for 1000 / T.
    """

    kind: type[DiffusersUNet] | type[WrappedUNet]
    options: dict[str, Any]
    shape: tuple[int, int, int]
    out_channels: int
    num_classes: int | None
    weights: dict[str, Tensor]
    time_shift: float
    time_scale: float | None

    def build(self) -> nn.Module:
        """The network, with its weights."""
        network = self.kind(self.shape, self.out_channels, self.num_classes, **self.options)
        network.load_state_dict(self.weights)
        return network


@dataclass(frozen=True)
class ReadChain:
    """The chain of a folder.

    Attributes:
        schedule: arguments of ``DiffusersSchedule``.
        parameterization: its class.
        variance: its class.
        first_step: of the variance.
    """

    schedule: dict[str, Any]
    parameterization: type[Parameterization]
    variance: type[ReverseVariance]
    first_step: str


@dataclass(frozen=True)
class Read:
    """A folder, taken apart.

    Attributes:
        network: of the folder.
        chain: None for a folder without a scheduler.
    """

    network: ReadNetwork
    chain: ReadChain | None


def from_diffusers(folder: Path | str) -> DiffusionModel:
    """A pipeline of a ``UNet2DModel`` that was saved in a folder, or downloaded into one.

    The chain is the one that the network was trained with, in float64, whichever scheduler draws samples. Its
    last step adds no noise and so does not define the variance there, which L_0 needs: it is beta_1, unless
    nelbo.json has another. A scheduler without ``variance_type`` has ``fixed_small``, the default of
    ``DDPMScheduler``, or ``learned_range`` where the network has twice as many outputs. How images are drawn
    (clipping, thresholding, fewer steps) is left to the sampler. Averaged weights in ``unet_ema`` are
    preferred.

    A network that ours cannot be computes by ``diffusers.UNet2DModel``, which must be installed.

        model = from_diffusers("ddpm-cifar10-32")
        bound = VariationalBound(model.chain, DiscretizedGaussian(256))

    Args:
        folder: with ``model_index.json``.

    Raises:
        ValueError: in one line, for a folder that is not such a pipeline or has what is not supported.
    """
    path = Path(folder)
    try:
        read = take_apart(read_folder(path).chosen("ema"))
        if read.chain is None:
            raise ValueError(
                "a network without a scheduler: name its chain by an experiment (evaluate.py checkpoint=... "
                "format=diffusers experiment=...), or save it in a DDPMPipeline"
            )
        network = read.network.build()
        schedule = DiffusersSchedule(**read.chain.schedule)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    scale = read.network.time_scale
    denoiser = Denoiser(
        network,
        read.chain.parameterization(),
        read.chain.variance(read.chain.first_step),
        time_scale=1000.0 / schedule.num_steps if scale is None else scale,
        time_shift=read.network.time_shift,
    )
    return DiffusionModel(denoiser.eval(), Chain(schedule), read.network.num_classes)


def take_apart(folder: Folder) -> Read:
    """What a folder is made of, in our words.

    Raises:
        ValueError: in one line, for what is not supported and for weights that do not fit.
    """
    try:
        network = read_network(folder)
        return Read(network, None if folder.scheduler is None else read_chain(folder, network))
    except (
        TypeError,
        IndexError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # words for numbers, nothing for lists
        reason = str(error).splitlines()[0]
        raise ValueError(f"its configuration does not make sense: {reason}") from error


def read_network(folder: Folder) -> ReadNetwork:
    """The network: ours, if it computes the same, else the one of diffusers.

    Raises:
        ValueError: for one that neither can be, and for weights that do not fit.
    """
    try:
        return _our_network(folder, read_settings(folder.unet))
    except UnsupportedError as reason:
        if importlib.util.find_spec("diffusers") is None:
            raise ValueError(f"{reason}, unless diffusers is installed: pip install diffusers") from reason
        return _wrapped_network(folder)


def _our_network(folder: Folder, settings: UNetSettings) -> ReadNetwork:
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
    return ReadNetwork(
        kind=DiffusersUNet,
        options=settings.options,
        shape=settings.shape,
        out_channels=settings.out_channels,
        num_classes=settings.num_classes,
        weights=ours,
        time_shift=time_shift,
        time_scale=None if settings.has_table else 1.0,
    )


def _wrapped_network(folder: Folder) -> ReadNetwork:
    config = known_options(folder.unet)
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"unet/config.json: class_embed_type={config['class_embed_type']} is not supported: "
            "it conditions on something else than a class"
        )
    options = DEFAULTS | config
    num_classes = options["num_class_embeds"]
    height, width = sample_size(options["sample_size"], len(options["block_out_channels"]))
    shape = (options["in_channels"], height, width)
    with torch.device("meta"):
        network = WrappedUNet(shape, options["out_channels"], num_classes, config=config)
    weights = {f"unet.{current_name(name)}": tensor.float() for name, tensor in folder.weights.items()}
    check_names_and_shapes(weights, network.state_dict())
    return ReadNetwork(
        kind=WrappedUNet,
        options={"config": config},
        shape=shape,
        out_channels=options["out_channels"],
        num_classes=num_classes,
        weights=weights,
        time_shift=-1.0,
        time_scale=1.0,
    )


def read_chain(folder: Folder, network: ReadNetwork) -> ReadChain:
    """The chain that the network was trained with.

    Raises:
        ValueError: for a scheduler of something else, and for what is not supported.
    """
    scheduler = folder.scheduler
    assert scheduler is not None, "the caller has seen to it"
    kind = scheduler.get("_class_name", WITH_DEFAULTS[0])
    if kind not in WITH_DEFAULTS and "beta_schedule" not in scheduler:
        raise ValueError(
            f"scheduler_config.json: {kind} has no betas (beta_schedule): only discrete, "
            "variance-preserving diffusion is read"
        )
    in_channels, out_channels = network.shape[0], network.out_channels
    prediction = scheduler.get("prediction_type", "epsilon")
    variance = scheduler.get("variance_type")
    if variance is None:
        variance = "learned_range" if out_channels == 2 * in_channels else "fixed_small"
    if prediction not in PARAMETERIZATIONS:
        raise ValueError(f"scheduler_config.json: prediction_type={prediction} is not supported")
    if variance not in VARIANCES:
        raise ValueError(f"scheduler_config.json: variance_type={variance} is not supported")
    needed = VARIANCES[variance]().output_channels(in_channels)
    if out_channels != needed:
        raise ValueError(
            f"the network has {out_channels} outputs, and variance_type={variance} needs {needed}"
        )
    schedule = {name: scheduler.get(name, default) for name, default in SCHEDULE.items()}
    if DiffusersSchedule(**schedule).zero_terminal_snr and prediction == "epsilon":
        raise ValueError(
            "scheduler_config.json: there is no signal at T (rescale_betas_zero_snr), and a network of "
            "prediction_type=epsilon says nothing of x_0 there: its bound is not finite (that of sample and "
            "v_prediction is)"
        )
    return ReadChain(
        schedule=schedule,
        parameterization=PARAMETERIZATIONS[prediction],
        variance=VARIANCES[variance],
        first_step=str(folder.ours.get("first_step", "beta")),
    )
