"""Import of a pipeline of diffusers as a denoiser and its chain."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import X0, Eps, Parameterization, V
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.diffusers.folder import Folder, read_folder
from nelbo.interop.diffusers.names import check_weights, current_name, to_our_names
from nelbo.interop.diffusers.schedule import DEFAULTS as SCHEDULE
from nelbo.interop.diffusers.schedule import DiffusersSchedule
from nelbo.interop.diffusers.settings import (
    DEFAULTS,
    UNetSettings,
    known_options,
    read_settings,
    sample_size,
)
from nelbo.interop.diffusers.time import cosines_first, rotate, shift_of_table
from nelbo.interop.diffusers.unet import DiffusersUNet, UnsupportedError
from nelbo.interop.diffusers.wrapped import WrappedUNet
from nelbo.interop.improved_diffusion.model import DiffusionModel

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"epsilon": Eps, "sample": X0, "v_prediction": V}
VARIANCES: dict[str, type[ReverseVariance]] = {
    "fixed_small": FixedSmall,
    "fixed_small_log": FixedSmall,  # the same variance, computed from its logarithm
    "fixed_large": FixedLarge,
    "fixed_large_log": FixedLarge,
    "learned_range": LearnedRange,
}
FIRST_LAYER = "unet.embedding.linear1.weight"
# schedulers with the defaults of schedule.py; others need explicit betas
WITH_DEFAULTS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")


@dataclass(frozen=True)
class ParsedNetwork:
    """The network of a folder.

    Attributes:
        kind: its class; ``WrappedUNet`` if ours has no equivalent.
        options: of ``kind``.
        shape: of one image, (C, H, W).
        out_channels: of the output.
        num_classes: of a class-conditional network; None for an unconditional one.
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
class ParsedChain:
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
class ParsedFolder:
    """The network and the chain of a folder.

    Attributes:
        network: of the folder.
        chain: None for a folder without a scheduler.
    """

    network: ParsedNetwork
    chain: ParsedChain | None


def from_diffusers(folder: Path | str) -> DiffusionModel:
    """Load a pipeline with a ``UNet2DModel`` from a folder.

    The chain is that of training, in float64, for any scheduler of the pipeline. The last sampling step of
    diffusers adds no noise, so the variance of the first step, which L_0 needs, is not defined: it is beta_1,
    unless nelbo.json has another. A scheduler without ``variance_type`` has ``fixed_small``, the default of
    ``DDPMScheduler``, or ``learned_range`` if the network has twice as many outputs. Options of sampling
    (clipping, thresholding, fewer steps) are ignored. Averaged weights in ``unet_ema`` are preferred.

    A configuration that our U-Net does not support uses ``diffusers.UNet2DModel``, which must be installed.

        model = from_diffusers("ddpm-cifar10-32")
        bound = VariationalBound(model.chain, DiscretizedGaussian(256))

    Args:
        folder: with ``model_index.json``.

    Raises:
        ValueError: for a folder that is not such a pipeline, or has an unsupported option.
    """
    path = Path(folder)
    try:
        parsed = parse_folder(read_folder(path).chosen("ema"))
        if parsed.chain is None:
            raise ValueError(
                "a network without a scheduler: name its chain by an experiment (evaluate.py checkpoint=... "
                "format=diffusers experiment=...), or save it in a DDPMPipeline"
            )
        network = parsed.network.build()
        schedule = DiffusersSchedule(**parsed.chain.schedule)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    scale = parsed.network.time_scale
    denoiser = Denoiser(
        network,
        parsed.chain.parameterization(),
        parsed.chain.variance(parsed.chain.first_step),
        TimestepConditioning(
            1000.0 / len(schedule.table()) if scale is None else scale, parsed.network.time_shift
        ),
    )
    return DiffusionModel(denoiser.eval(), Chain(schedule), parsed.network.num_classes)


def parse_folder(folder: Folder) -> ParsedFolder:
    """The network and the chain that a folder describes.

    Raises:
        ValueError: for unsupported or invalid options, and for weights that do not fit.
    """
    try:
        network = parse_network(folder)
        return ParsedFolder(network, None if folder.scheduler is None else parse_chain(folder, network))
    except (TypeError, IndexError, ArithmeticError, RuntimeError) as error:  # such as a string for a number
        reason = str(error).splitlines()[0]
        raise ValueError(f"its configuration is invalid: {reason}") from error


def parse_network(folder: Folder) -> ParsedNetwork:
    """The network: our U-Net if it supports the configuration, otherwise the one of diffusers.

    Raises:
        ValueError: for a configuration that neither supports, and for weights that do not fit.
    """
    try:
        return _our_network(folder, read_settings(folder.unet))
    except UnsupportedError as reason:
        if importlib.util.find_spec("diffusers") is None:
            raise ValueError(f"{reason}, unless diffusers is installed: pip install diffusers") from reason
        return _wrapped_network(folder)


def _our_network(folder: Folder, settings: UNetSettings) -> ParsedNetwork:
    weights = dict(folder.weights)
    table = weights.pop("time_proj.weight", None) if settings.has_table else None
    with torch.device("meta"):  # only names and shapes are read
        network = settings.network()
    ours = {f"unet.{name}": tensor for name, tensor in to_our_names(weights, network.unet).items()}
    if not settings.cosines_first:
        ours[FIRST_LAYER] = cosines_first(ours[FIRST_LAYER])
    if settings.has_table:
        if table is None:
            raise ValueError("the weights do not fit unet/config.json: missing: time_proj.weight")
        time_shift = shift_of_table(table)
    else:  # undo the shift of an export by nelbo
        time_shift = float(folder.ours.get("time_shift", -1.0))
        max_period = network.unet.embedding.max_period
        ours[FIRST_LAYER] = rotate(ours[FIRST_LAYER], -(1.0 + time_shift), max_period)
    return ParsedNetwork(
        kind=DiffusersUNet,
        options=settings.options,
        shape=settings.shape,
        out_channels=settings.out_channels,
        num_classes=settings.num_classes,
        weights=ours,
        time_shift=time_shift,
        time_scale=None if settings.has_table else 1.0,
    )


def _wrapped_network(folder: Folder) -> ParsedNetwork:
    config = known_options(folder.unet)
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"unet/config.json: class_embed_type={config['class_embed_type']} is not supported: "
            "only classes (num_class_embeds) are supported"
        )
    options = DEFAULTS | config
    num_classes = options["num_class_embeds"]
    height, width = sample_size(options["sample_size"], len(options["block_out_channels"]))
    shape = (options["in_channels"], height, width)
    with torch.device("meta"):
        network = WrappedUNet(shape, options["out_channels"], num_classes, config=config)
    weights = {f"unet.{current_name(name)}": tensor.float() for name, tensor in folder.weights.items()}
    check_weights(weights, network.state_dict())
    return ParsedNetwork(
        kind=WrappedUNet,
        options={"config": config},
        shape=shape,
        out_channels=options["out_channels"],
        num_classes=num_classes,
        weights=weights,
        time_shift=-1.0,
        time_scale=1.0,
    )


def parse_chain(folder: Folder, network: ParsedNetwork) -> ParsedChain:
    """The chain that the network was trained with.

    Raises:
        ValueError: for an unsupported scheduler or option.
    """
    scheduler = folder.scheduler
    assert scheduler is not None
    kind = scheduler.get("_class_name", WITH_DEFAULTS[0])
    if kind not in WITH_DEFAULTS and "beta_schedule" not in scheduler:
        raise ValueError(
            f"scheduler_config.json: {kind} has no betas (beta_schedule): only discrete, "
            "variance-preserving diffusion is supported"
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
    PARAMETERIZATIONS[prediction]().check_noisiest(Chain(DiffusersSchedule(**schedule)).noisiest)
    return ParsedChain(
        schedule=schedule,
        parameterization=PARAMETERIZATIONS[prediction],
        variance=VARIANCES[variance],
        first_step=str(folder.ours.get("first_step", "beta")),
    )
