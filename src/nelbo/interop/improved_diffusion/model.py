"""Models of improved-diffusion: weights and flags in, a denoiser and its chain out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import X0, Eps
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule, NoiseSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, ReverseVariance
from nelbo.interop.improved_diffusion.fit import check_fit
from nelbo.interop.improved_diffusion.flags import Flags, read_flags
from nelbo.interop.improved_diffusion.names import unet_state_dict
from nelbo.models import UNet

FIRST_STEP = "beta_tilde"  # the variance of that project's first step, whichever variance it is


@dataclass(frozen=True)
class DiffusionModel:
    """A trained model, ready to be measured or sampled from.

    Attributes:
        denoiser: in evaluation mode.
        chain: the noise levels it is meant for.
        num_classes: of a class-conditional model, which must be told a label; None for an unconditional one.
    """

    denoiser: Denoiser
    chain: Chain
    num_classes: int | None


def from_improved_diffusion(state_dict: Mapping[str, Tensor], **flags: Any) -> DiffusionModel:
    """A model of improved-diffusion, with everything as that project has it.

    Its bound is computed by ``VariationalBound(model.chain, DiscretizedGaussian(256))``; that project's
    own figures have ``cdf="tanh"`` and x0_hat clipped to (-1, 1).

        weights = torch.load("cifar10_uncond_50M_500K.pt", weights_only=True)
        model = from_improved_diffusion(
            weights, image_size=32, num_res_blocks=3, learn_sigma=True, dropout=0.3,
            diffusion_steps=4000, noise_schedule="cosine",
        )

    Args:
        state_dict: of that project's network; not modified. The model shares its memory.
        flags: as that project's scripts call them, with their defaults: see :class:`Flags`.

    Raises:
        ValueError: for a flag that is unknown, impossible or not supported, and for weights that do not fit.
    """
    options = read_flags(flags)
    weights = unet_state_dict(state_dict)
    with torch.device("meta"):  # its weights are about to be replaced
        network = unet(options)
    check_fit(weights, network, options)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    denoiser = Denoiser(
        network,
        X0() if options.predict_xstart else Eps(),
        reverse_variance(options),
        time_scale=1000.0 / options.diffusion_steps if options.rescale_timesteps else 1.0,
        time_shift=-1.0,
    )
    return DiffusionModel(
        denoiser=denoiser.eval(),
        chain=Chain(noise_schedule(options), options.timesteps),
        num_classes=options.num_classes,
    )


def unet(flags: Flags) -> UNet:
    """The network of the flags, untrained.

    Raises:
        ValueError: when there cannot be one.
    """
    return UNet(
        (flags.in_channels, flags.image_size, flags.image_size),
        flags.out_channels,
        flags.num_classes,
        channels=flags.num_channels,
        channel_mult=flags.multiples,
        num_res_blocks=flags.num_res_blocks,
        attention_resolutions=flags.attention_sides,
        num_heads=flags.num_heads,
        dropout=flags.dropout,
        use_scale_shift_norm=flags.use_scale_shift_norm,
    )


def reverse_variance(flags: Flags) -> ReverseVariance:
    """The variance of the flags; a learned one takes no notice of ``sigma_small``, as in that project."""
    if flags.learn_sigma:
        return LearnedRange(FIRST_STEP)
    return FixedSmall(FIRST_STEP) if flags.sigma_small else FixedLarge(FIRST_STEP)


def noise_schedule(flags: Flags) -> NoiseSchedule:
    """The schedule of the flags, as published."""
    schedule = LinearSchedule if flags.noise_schedule == "linear" else CosineSchedule
    return schedule(flags.diffusion_steps, logsnr_max="paper")
