"""Compare weights with flags, and find the wrong flags.

The shapes of the weights determine most flags of the network, but not ``num_heads`` and the flags of the
diffusion process: with a wrong one of these the weights load, and the bound is that of another model.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from nelbo.interop.improved_diffusion.flags import Flags, GuidedFlags
from nelbo.interop.improved_diffusion.numbers import plain_number
from nelbo.interop.state_dict import differences


def check_fit(weights: Mapping[str, Tensor], network: nn.Module, flags: Flags) -> None:
    """Compare weights, with our names, with the network of the flags.

    Raises:
        ValueError: with the flags that the weights contradict, and the first weights that differ.
    """
    details = differences(weights, network.state_dict())
    if not details:
        return
    suspects = [
        f"{flag}={found}, not {given}" for flag, (found, given) in contradictions(weights, flags).items()
    ]
    verdict = f"they have {'; '.join(suspects)}" if suspects else "no flag explains how they differ"
    raise ValueError(f"the weights do not fit the flags: {verdict} ({details})")


def contradictions(weights: Mapping[str, Tensor], flags: Flags) -> dict[str, tuple[object, object]]:
    """The flags that the shapes of the weights contradict.

    Args:
        weights: of a whole network, with our names.
        flags: flags of the user.

    Returns:
        By flag: the value that the weights imply, and the value in ``flags``.
    """

    def size(name: str, axis: int) -> int:
        shape = weights[name].shape
        return shape[axis] if axis < len(shape) else 0

    blocks = [match for match in map(re.compile(r"down\.(\d+)\.blocks\.(\d+)\.").match, weights) if match]
    num_levels = 1 + max((int(block[1]) for block in blocks), default=-1)
    channels = max(size("embedding.linear1.weight", 1), 1)
    widths = [size(f"down.{level}.blocks.0.residual.conv1.weight", 0) for level in range(num_levels)]
    multiples = [plain_number(width / channels) for width in widths]
    image_size = flags.image_size
    if flags.channel_mult in (None, ""):  # image_size determines the multiples
        sizes = (side for side, usual in flags.CHANNEL_MULT.items() if usual == multiples)
        image_size = next(sizes, image_size)
    sides = [
        image_size >> level
        for level in range(num_levels)
        if f"down.{level}.blocks.0.attention.qkv.weight" in weights
    ]
    middle = "middle.0.residual"
    found_and_given = {
        "image_size": (image_size, flags.image_size),
        "num_channels": (channels, flags.num_channels),
        "num_res_blocks": (len({block[2] for block in blocks}), flags.num_res_blocks),
        "learn_sigma": (size("out.2.weight", 0) == 2 * size("stem.weight", 1), flags.learn_sigma),
        "class_cond": ("embedding.label.weight" in weights, flags.class_cond),
        "use_scale_shift_norm": (
            size(f"{middle}.embedding.weight", 0) == 2 * size(f"{middle}.conv1.weight", 0),
            flags.use_scale_shift_norm,
        ),
        "in_channels": (size("stem.weight", 1), flags.in_channels),
    }
    if isinstance(flags, GuidedFlags):
        found = "down.0.downsample.conv1.weight" in weights
        found_and_given["resblock_updown"] = (found, flags.resblock_updown)
    if image_size == flags.image_size:
        found_and_given["channel_mult"] = (multiples, flags.multiples)
        found_and_given["attention_resolutions"] = (sides, flags.attention_sides)
    return {flag: (found, given) for flag, (found, given) in found_and_given.items() if found != given}
