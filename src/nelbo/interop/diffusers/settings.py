"""``unet/config.json``: conversion between the options of diffusers and ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from nelbo.interop.diffusers.unet import DiffusersUNet, UnsupportedError
from nelbo.models.attention import SelfAttention
from nelbo.models.blocks import ResidualBlock
from nelbo.models.unet import UNet

# of UNet2DModel, for options that are not in config.json
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": None,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# options with one supported behaviour: the default, and synonyms
FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "time_embedding_type": ("positional", "learned"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "downsample_padding": (0, 1),
}
PLAIN, ATTENTION = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")


@dataclass(frozen=True)
class UNetSettings:
    """A network of diffusers in our terms.

    Attributes:
        shape: of one image, (C, H, W).
        out_channels: of the output.
        num_classes: of a class-conditional network; None for an unconditional one.
        options: of :class:`DiffusersUNet`.
        cosines_first: order of the time features; ours is cosines first.
        has_table: whether the time features are a table in the weights.
    """

    shape: tuple[int, int, int]
    out_channels: int
    num_classes: int | None
    options: dict[str, Any]
    cosines_first: bool
    has_table: bool

    def network(self) -> DiffusersUNet:
        """The network, untrained."""
        return DiffusersUNet(self.shape, self.out_channels, self.num_classes, **self.options)


def read_settings(config: Mapping[str, Any]) -> UNetSettings:
    """The network of a ``unet/config.json``.

    Raises:
        UnsupportedError: for a configuration that our U-Net does not support.
    """
    given = known_options(config)
    options = DEFAULTS | {name: allowed[0] for name, allowed in FIXED.items()} | given
    for name, allowed in (FIXED | CHOICES).items():
        if options[name] not in allowed:
            words = " or ".join(map(str, allowed))
            raise UnsupportedError(f"unet/config.json: {name}={options[name]} is not supported, only {words}")
    widths, types = list(options["block_out_channels"]), list(options["down_block_types"])
    channels, groups = widths[0], options["norm_num_groups"]
    has_attention = [kind == ATTENTION[0] for kind in types]
    mirrored = [(ATTENTION if attends else PLAIN)[1] for attends in reversed(has_attention)]
    if not set(types) <= {PLAIN[0], ATTENTION[0]} or list(options["up_block_types"]) != mirrored:
        raise UnsupportedError(
            "unet/config.json: only DownBlock2D and AttnDownBlock2D are supported, mirrored in up_block_types"
        )
    if len(types) != len(widths) or any(width % channels for width in widths):
        raise UnsupportedError(
            f"unet/config.json: block_out_channels={widths}: expected one per block, multiples of the first"
        )
    if options["time_embedding_dim"] not in (None, 4 * channels):
        raise UnsupportedError(
            f"unet/config.json: time_embedding_dim={options['time_embedding_dim']} is not supported, only "
            f"{4 * channels}"
        )
    of_middle = options["attn_norm_num_groups"]
    if of_middle is None and options["resnet_time_scale_shift"] == "default":
        of_middle = groups  # with scale and shift, the middle attention then has no norm
    if of_middle != groups:
        raise UnsupportedError(
            f"unet/config.json: attn_norm_num_groups={of_middle} is not supported, only {groups}"
        )
    height, width = sample_size(options["sample_size"], len(widths))
    return UNetSettings(
        shape=(options["in_channels"], height, width),
        out_channels=options["out_channels"],
        num_classes=options["num_class_embeds"],
        options={
            "channels": channels,
            "channel_mult": [width // channels for width in widths],
            "num_res_blocks": options["layers_per_block"],
            "attention_levels": [level for level, has in enumerate(has_attention) if has],
            "dropout": options["dropout"],
            "use_scale_shift_norm": options["resnet_time_scale_shift"] == "scale_shift",
            "attention_head_dim": options["attention_head_dim"],
            "norm_num_groups": groups,
            "norm_eps": options["norm_eps"],
            "downsample_padding": options["downsample_padding"],
            "freq_shift": options["freq_shift"],
        },
        cosines_first=options["flip_sin_to_cos"],
        has_table=options["time_embedding_type"] == "learned",
    )


def describe_network(network: nn.Module, sample_size: tuple[int, int]) -> dict[str, Any]:
    """The fields of ``unet/config.json`` for our U-Net, without those of the time embedding.

    Args:
        network: a ``UNet`` or ``DiffusersUNet``.
        sample_size: height and width of the images.

    Raises:
        ValueError: for a network without an equivalent in ``UNet2DModel``.
    """
    whole = network if isinstance(network, DiffusersUNet) else None
    unet = network if whole is None else whole.unet
    if not isinstance(unet, UNet):
        raise ValueError(
            f"diffusers has no equivalent of the network {type(unet).__name__}: only U-Nets can be exported"
        )
    if unet.embedding.dim != unet.stem.out_channels or any(
        isinstance(level.downsample, ResidualBlock) for level in unet.down
    ):
        raise ValueError(
            "diffusers has no equivalent of model.resblock_updown=true, or of model.embedding_channels other "
            "than model.channels"
        )
    blocks = [level.blocks[0] for level in unet.down]  # type: ignore[union-attr]
    widths = [block.residual.conv2.out_channels for block in blocks]  # type: ignore[union-attr]
    if widths[0] != unet.stem.out_channels:
        raise ValueError(
            "diffusers needs channel_mult to begin with 1: the first level has width "
            f"{widths[0]} for {unet.stem.out_channels} channels"
        )
    norms = {module.num_groups for module in unet.modules() if isinstance(module, nn.GroupNorm)}
    if len(norms) > 1:
        raise ValueError(
            f"diffusers has one number of groups for all norms, and this network has {sorted(norms)}: "
            "use channels in multiples of 32"
        )
    attends = [isinstance(block.attention, SelfAttention) for block in blocks]  # type: ignore[union-attr]
    label = unet.embedding.label
    return {
        "sample_size": sample_size[0] if sample_size[0] == sample_size[1] else list(sample_size),
        "in_channels": unet.stem.in_channels,
        "out_channels": unet.out[2].out_channels,
        "block_out_channels": widths,
        "layers_per_block": len(unet.down[0].blocks),  # type: ignore[arg-type]
        "down_block_types": [(ATTENTION if has else PLAIN)[0] for has in attends],
        "up_block_types": [(ATTENTION if has else PLAIN)[1] for has in reversed(attends)],
        "attention_head_dim": _head_dim(unet),
        "norm_num_groups": norms.pop(),
        "attn_norm_num_groups": unet.out[0].num_groups,
        "norm_eps": unet.out[0].eps,
        "resnet_time_scale_shift": (
            "scale_shift" if unet.middle[0].residual.use_scale_shift_norm else "default"  # type: ignore[union-attr]
        ),
        "dropout": unet.middle[0].residual.dropout.p,  # type: ignore[union-attr]
        "downsample_padding": 1 if whole is None else whole.downsample_padding,
        "freq_shift": 0 if whole is None else whole.freq_shift,
        "flip_sin_to_cos": True,
        "num_class_embeds": None if label is None else label.num_embeddings,
    } | {name: allowed[0] for name, allowed in FIXED.items()}


def _head_dim(unet: UNet) -> int | None:
    """Channels of every head; None for one head.

    Raises:
        ValueError: if they differ between levels.
    """
    attentions = [module for module in unet.modules() if isinstance(module, SelfAttention)]
    if all(attention.num_heads == 1 for attention in attentions):
        return None
    sizes = {attention.out.out_channels // attention.num_heads for attention in attentions}
    if len(sizes) > 1:
        raise ValueError(
            f"diffusers has heads of one size at all levels, and this network has heads of {sorted(sizes)} "
            "channels: use model.num_heads=1, or attention at levels of one width"
        )
    return sizes.pop()


def known_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``UNet2DModel`` in a configuration; others are ignored, as in diffusers."""
    return {name: value for name, value in config.items() if name in DEFAULTS or name in FIXED}


def sample_size(size: Any, num_levels: int) -> tuple[int, int]:
    """Height and width; by default a size that is divisible at all levels.

    Raises:
        ValueError: unless ``size`` is one or two positive integers, or empty.
    """
    sides = [size, size] if isinstance(size, int) else list(size or [4 << num_levels] * 2)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f"unet/config.json: sample_size={size}: expected the side of the images, or height and width"
        )
    return sides[0], sides[1]
