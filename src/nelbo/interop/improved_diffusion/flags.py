"""Flags of the scripts of improved-diffusion and guided-diffusion: names, defaults and validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.interop.improved_diffusion.numbers import numbers, plain_number, whole_numbers
from nelbo.interop.improved_diffusion.respacing import respaced_timesteps
from nelbo.text import did_you_mean

SCHEDULES = {"linear": LinearSchedule, "cosine": CosineSchedule}
NUM_CLASSES = 1000  # of the released class-conditional networks
NORM_GROUPS = 32
FlagsT = TypeVar("FlagsT", bound="Flags")


@dataclass(frozen=True)
class Flags:
    """Flags of improved-diffusion, with ``channel_mult`` and ``in_channels`` in addition.

    Attributes:
        image_size: height and width of the images.
        num_channels: width of the network at the full resolution, a multiple of 32.
        num_res_blocks: blocks per level of the encoder.
        num_heads: of every attention.
        num_heads_upsample: heads in the decoder; -1, or equal to ``num_heads``.
        attention_resolutions: sides of the feature maps with attention, ``"16,8"`` or a sequence. Other sides
            are ignored, as in that project.
        dropout: in training; no effect here.
        learn_sigma: the network also predicts the variance.
        sigma_small: a fixed variance is beta-tilde instead of beta.
        class_cond: the network is class-conditional; the number of classes is in its weights.
        diffusion_steps: T.
        noise_schedule: ``linear`` or ``cosine``.
        timestep_respacing: timesteps of the chain, see ``respacing.py``.
        use_kl: training on the bound; no effect here.
        predict_xstart: the network predicts x_0 instead of the noise.
        rescale_timesteps: the network receives t * 1000 / T instead of t.
        rescale_learned_sigmas: weight of the bound in training; no effect here.
        use_checkpoint: recomputation of activations in training; no effect here.
        use_scale_shift_norm: the noise level scales and shifts the features instead of adding to them.
        channel_mult: width of every level as a multiple of ``num_channels``, ``"1,2,2,2"`` or a sequence;
            None: that of the project for images of 32, 64 and 256.
        in_channels: of the images; 3 in that project.

    Raises:
        ValueError: for a flag of the wrong type, out of range, or not supported.
    """

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    attention_resolutions: str | Sequence[int] = "16,8"
    dropout: float = 0.0
    learn_sigma: bool = False
    sigma_small: bool = False
    class_cond: bool = False
    diffusion_steps: int = 1000
    noise_schedule: str = "linear"
    timestep_respacing: str | Sequence[int] = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = True
    rescale_learned_sigmas: bool = True
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    channel_mult: str | Sequence[float] | None = None
    in_channels: int = 3

    CHANNEL_MULT: ClassVar[dict[int, list[float]]] = {
        256: [1, 1, 2, 2, 4, 4],
        64: [1, 2, 3, 4],
        32: [1, 2, 2, 2],
    }

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_kind(field.name, getattr(self, field.name), field.default)
        if self.noise_schedule not in SCHEDULES:
            raise ValueError(f"noise_schedule={self.noise_schedule}: expected one of {', '.join(SCHEDULES)}")
        if self.num_channels % NORM_GROUPS:
            raise ValueError(
                f"num_channels={self.num_channels}: must be a multiple of {NORM_GROUPS}, for the norms"
            )
        if self.num_heads_upsample not in (-1, self.num_heads):
            raise ValueError(
                f"num_heads_upsample={self.num_heads_upsample}: encoder and decoder must have equally many "
                f"heads: use -1, or num_heads={self.num_heads}"
            )
        if self.channel_mult in (None, "") and self.image_size not in self.CHANNEL_MULT:
            sizes = ", ".join(map(str, sorted(self.CHANNEL_MULT)))
            raise ValueError(
                f"image_size={self.image_size}: that project has networks for {sizes}; "
                "for another size, add channel_mult"
            )

    @property
    def out_channels(self) -> int:
        """Outputs of the network."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def multiples(self) -> list[float]:
        """Width of every level, as a multiple of ``num_channels``.

        Raises:
            ValueError: for a multiple below 1.
        """
        if self.channel_mult in (None, ""):
            return self.CHANNEL_MULT[self.image_size]
        multiples = whole_numbers("channel_mult", self.channel_mult)
        if min(multiples, default=0) < 1:
            raise ValueError(f"channel_mult={self.channel_mult}: expected multiples of at least 1")
        return [*multiples]

    @property
    def stem_channels(self) -> int:
        """Width of the first convolution."""
        return self.num_channels

    @property
    def attention_sides(self) -> list[int]:
        """Sides of the feature maps with attention that the network has, in decreasing order.

        Raises:
            ValueError: for a side below 1.
        """
        sides = whole_numbers("attention_resolutions", self.attention_resolutions)
        if min(sides, default=1) < 1:
            raise ValueError(
                f"attention_resolutions={self.attention_resolutions}: every side must be at least 1"
            )
        # that project identifies levels by the downsampling factor
        factors = {self.image_size // side for side in sides}
        return [self.image_size >> level for level in range(len(self.multiples)) if 2**level in factors]

    @property
    def timesteps(self) -> Tensor:
        """The chain, (K,) int64, increasing, in 1..T."""
        return respaced_timesteps(self.diffusion_steps, self.timestep_respacing)


@dataclass(frozen=True)
class GuidedFlags(Flags):
    """Flags of guided-diffusion: those of :class:`Flags`, some with other defaults, and its own.

    ``class_cond`` networks have any number of classes. By default the network receives 0-based timesteps
    (``rescale_timesteps=False``).

    Attributes:
        num_head_channels: channels of every head; -1 for ``num_heads`` heads.
        use_new_attention_order: split queries, keys and values before the heads. Not visible in the weights.
        resblock_updown: residual blocks resample the feature maps.
        use_fp16: half precision; no effect here, the network computes in float32.

    Raises:
        ValueError: as :class:`Flags`.
    """

    rescale_timesteps: bool = False
    rescale_learned_sigmas: bool = False
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    resblock_updown: bool = False
    use_fp16: bool = False

    CHANNEL_MULT: ClassVar[dict[int, list[float]]] = {
        512: [0.5, 1, 1, 2, 2, 4, 4],
        256: [1, 1, 2, 2, 4, 4],
        128: [1, 1, 2, 3, 4],
        64: [1, 2, 3, 4],
    }

    @property
    def multiples(self) -> list[float]:
        """Width of every level, as a multiple of ``num_channels``; fractions are allowed.

        Raises:
            ValueError: if a width is not a multiple of 32.
        """
        if self.channel_mult in (None, ""):
            return self.CHANNEL_MULT[self.image_size]
        multiples = [plain_number(each) for each in numbers("channel_mult", self.channel_mult or ())]
        widths = [self.num_channels * multiple for multiple in multiples]
        if not widths or not all(width > 0 and width % NORM_GROUPS == 0 for width in widths):
            raise ValueError(
                f"channel_mult={self.channel_mult}: times num_channels={self.num_channels}, every level "
                f"must be a multiple of {NORM_GROUPS}, for the norms"
            )
        return multiples

    @property
    def stem_channels(self) -> int:
        """Width of the first convolution, which is that of the first level."""
        return round(self.num_channels * self.multiples[0])

    @property
    def head_channels(self) -> int | None:
        """Channels of every head; None for ``num_heads`` heads."""
        return None if self.num_head_channels == -1 else self.num_head_channels

    def heads(self, channels: int) -> int:
        """Number of heads of an attention layer with ``channels``."""
        return self.num_heads if self.head_channels is None else channels // self.head_channels


GUIDED_ONLY = {field.name for field in fields(GuidedFlags)} - {field.name for field in fields(Flags)}


def read_flags(given: Mapping[str, Any], kind: type[FlagsT]) -> FlagsT:
    """Flags from names and values.

    Args:
        given: names and values.
        kind: :class:`Flags` or :class:`GuidedFlags`.

    Raises:
        ValueError: for an unknown flag, and as ``kind``.
    """
    known = [field.name for field in fields(kind)]
    for name in given:
        if name in GUIDED_ONLY and kind is Flags:
            raise ValueError(
                f"{name} is a flag of guided-diffusion: read its checkpoints with from_guided_diffusion, or "
                "format=guided_diffusion"
            )
        if name not in known:
            raise ValueError(
                f"unknown flag {name}{did_you_mean(name, known)}: expected one of {', '.join(known)}"
            )
    return kind(**given)


def check_named(given: Mapping[str, Any]) -> None:
    """Check that the flags of guided-diffusion that are not visible in the weights are given.

    Raises:
        ValueError: with the missing flags and their defaults.
    """
    hidden = {
        "num_heads or num_head_channels": "num_heads=4",
        "use_new_attention_order": "False",
        "noise_schedule": "linear",
        "diffusion_steps": "1000",
    }
    missing = [
        f"{names} (default {default})"
        for names, default in hidden.items()
        if not given.keys() & set(names.split(" or "))
    ]
    if missing:
        raise ValueError(f"the weights do not determine {', '.join(missing)}: add the values of training")


def _check_kind(name: str, value: object, default: object) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: expected True or False")
    elif isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: expected a whole number")
        if default > 0 and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    elif isinstance(default, float) and not (isinstance(value, int | float) and 0.0 <= value < 1.0):
        raise ValueError(f"{name}={value!r}: expected a number in [0, 1)")
