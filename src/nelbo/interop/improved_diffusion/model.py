"""Models of improved-diffusion and guided-diffusion: a denoiser and its chain from weights and flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import X0, Eps
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.improved_diffusion.fit import check_fit
from nelbo.interop.improved_diffusion.flags import (
    NUM_CLASSES,
    SCHEDULES,
    Flags,
    GuidedFlags,
    check_named,
    read_flags,
)
from nelbo.interop.improved_diffusion.names import unet_state_dict
from nelbo.interop.improved_diffusion.numbers import plain_number
from nelbo.models import UNet

FIRST_STEP = "beta_tilde"  # in that project, for every variance


@dataclass(frozen=True)
class DiffusionModel:
    """A trained model.

    Attributes:
        denoiser: in evaluation mode.
        chain: its noise levels.
        num_classes: of a class-conditional model, which needs ``cond``; None for an unconditional one.
    """

    denoiser: Denoiser
    chain: Chain
    num_classes: int | None


def from_improved_diffusion(state_dict: Mapping[str, Tensor], **flags: Any) -> DiffusionModel:
    """A model of improved-diffusion.

    Its bound is ``VariationalBound(model.chain, DiscretizedGaussian(256))``; the published numbers have
    ``cdf="tanh"`` and x0_hat clipped to (-1, 1).

        weights = torch.load("cifar10_uncond_50M_500K.pt", weights_only=True)
        model = from_improved_diffusion(
            weights, image_size=32, num_res_blocks=3, learn_sigma=True, dropout=0.3,
            diffusion_steps=4000, noise_schedule="cosine",
        )

    Args:
        state_dict: of the network of that project; not modified. The model shares its memory.
        flags: flags of the scripts of that project, with their defaults: see :class:`Flags`.

    Raises:
        ValueError: for a flag that is unknown, invalid or not supported, and for weights that do not fit.
    """
    return _model(state_dict, read_flags(flags, Flags))


def from_guided_diffusion(state_dict: Mapping[str, Tensor], **flags: Any) -> DiffusionModel:
    """A model of guided-diffusion (Dhariwal & Nichol 2021).

    The README of that project lists the flags of the released models. The weights do not determine heads,
    attention order and chain: ``num_heads`` or ``num_head_channels``, ``use_new_attention_order``,
    ``noise_schedule`` and ``diffusion_steps`` are required. The flags ``predict_xstart``, ``sigma_small`` and
    ``rescale_timesteps`` are not visible either, and default to the values of that project. The number of
    classes is that of the weights.

        weights = torch.load("64x64_diffusion.pt", weights_only=True)
        model = from_guided_diffusion(
            weights, image_size=64, class_cond=True, learn_sigma=True, num_channels=192, num_res_blocks=3,
            num_head_channels=64, attention_resolutions="32,16,8", resblock_updown=True,
            use_new_attention_order=True, diffusion_steps=1000, noise_schedule="cosine",
        )

    Args:
        state_dict: of the network of that project; not modified.
        flags: flags of the scripts of that project: see :class:`GuidedFlags`.

    Raises:
        ValueError: for a flag that is unknown, invalid or missing, and for weights that do not fit.
    """
    check_named(flags)
    return _model(state_dict, read_flags(flags, GuidedFlags))


def _model(state_dict: Mapping[str, Tensor], flags: Flags) -> DiffusionModel:
    weights = read_weights(state_dict, flags)
    num_classes = count_classes(weights)
    with torch.device("meta"):  # its weights are replaced
        network = unet(flags, num_classes)
    network.load_state_dict(weights, assign=True)
    schedule = SCHEDULES[flags.noise_schedule](flags.diffusion_steps, logsnr_max="paper")
    denoiser = Denoiser(
        network,
        X0() if flags.predict_xstart else Eps(),
        reverse_variance(flags),
        TimestepConditioning(time_scale(flags), shift=-1.0),
    )
    return DiffusionModel(
        denoiser=denoiser.eval(),
        chain=Chain(schedule, flags.timesteps),
        num_classes=num_classes,
    )


def read_weights(state_dict: Mapping[str, Tensor], flags: Flags) -> dict[str, Tensor]:
    """The weights of a network with our names, in float32 and in our attention order.

    Raises:
        ValueError: for weights of another network or of other flags.
    """
    weights = unet_state_dict(state_dict)
    with torch.device("meta"):
        network = unet(flags, count_classes(weights) if flags.class_cond else None)
    check_fit(weights, network, flags)
    if isinstance(flags, GuidedFlags) and flags.use_new_attention_order:
        weights = {name: _legacy_order(name, tensor, flags) for name, tensor in weights.items()}
    return {name: tensor.float() for name, tensor in weights.items()}


def count_classes(weights: Mapping[str, Tensor]) -> int | None:
    """The number of classes of weights with our names; None for an unconditional network."""
    label = weights.get("embedding.label.weight")
    return None if label is None or label.ndim == 0 else len(label)


def _legacy_order(name: str, tensor: Tensor, flags: GuidedFlags) -> Tensor:
    """Rows of ``qkv`` from [q, k, v][head][channel] to [head][q, k, v][channel]."""
    if ".attention.qkv." not in name:
        return tensor
    heads = flags.heads(len(tensor) // 3)
    return tensor.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)


def time_scale(flags: Flags) -> float:
    """Factor of the timestep in the input of the network."""
    return 1000.0 / flags.diffusion_steps if flags.rescale_timesteps else 1.0


def unet(flags: Flags, num_classes: int | None = None) -> UNet:
    """The untrained network of the flags.

    Args:
        flags: of the network.
        num_classes: of a class-conditional network; None for that of the released models.

    Raises:
        ValueError: for invalid flags.
    """
    if num_classes is None and flags.class_cond:
        num_classes = NUM_CLASSES
    return UNet(
        (flags.in_channels, flags.image_size, flags.image_size),
        flags.out_channels,
        num_classes,
        **unet_options(flags),
    )


def unet_options(flags: Flags) -> dict[str, Any]:
    """The arguments of our U-Net for the flags, as plain values."""
    stem = flags.stem_channels
    options = {
        "channels": stem,
        "channel_mult": [plain_number(each * flags.num_channels / stem) for each in flags.multiples],
        "num_res_blocks": flags.num_res_blocks,
        "attention_resolutions": flags.attention_sides,
        "num_heads": flags.num_heads,
        "dropout": flags.dropout,
        "use_scale_shift_norm": flags.use_scale_shift_norm,
    }
    if isinstance(flags, GuidedFlags):
        options |= {
            "num_head_channels": flags.head_channels,
            "resblock_updown": flags.resblock_updown,
            "embedding_channels": flags.num_channels,
        }
    return options


def reverse_variance(flags: Flags) -> ReverseVariance:
    """The variance of the flags; ``sigma_small`` has no effect on a learned one, as in that project."""
    if flags.learn_sigma:
        return LearnedRange(FIRST_STEP)
    return FixedSmall(FIRST_STEP) if flags.sigma_small else FixedLarge(FIRST_STEP)
