"""Whether weights fit the flags that they are said to have, and if not, which flag is wrong.

Most flags of the network can be read off the shapes of its weights. ``num_heads`` cannot, nor can those of
the diffusion process: with a wrong one of these the weights load, and the bound is that of a broken model.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from nelbo.interop.format_list import format_list
from nelbo.interop.improved_diffusion.flags import Flags, GuidedFlags
from nelbo.interop.improved_diffusion.numbers import plain_number


def check_fit(weights: Mapping[str, Tensor], network: nn.Module, flags: Flags) -> None:
    """Compare weights, under our names, with the network of the flags.

    Raises:
        ValueError: naming the flags that the weights contradict, and the first weights that differ.
    """
    needed = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: list(tensor.shape) for name, tensor in weights.items()}
    if given == needed:
        return
    shapes = {
        f"{name} {given[name]} for {needed[name]}"
        for name in given.keys() & needed.keys()
        if given[name] != needed[name]
    }
    suspects = [f"{flag}={seen}, not {said}" for flag, (seen, said) in contradictions(weights, flags).items()]
    differences = {
        "missing": needed.keys() - given.keys(),
        "unexpected": given.keys() - needed.keys(),
        "of another shape": shapes,
    }
    details = "; ".join(f"{how} {format_list(names, 3)}" for how, names in differences.items() if names)
    verdict = f"they have {'; '.join(suspects)}" if suspects else "no flag explains how they differ"
    raise ValueError(f"the weights do not fit the flags: {verdict} ({details})")


def contradictions(weights: Mapping[str, Tensor], flags: Flags) -> dict[str, tuple[object, object]]:
    """What the weights say of the flags, where it is not what the flags say.

    Args:
        weights: of a whole network, under our names.
        flags: that are said to be theirs.

    Returns:
        By the name of the flag: what the weights say, and what was said.
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
    if flags.channel_mult in (None, ""):  # then it was image_size that chose them
        sizes = (side for side, usual in flags.CHANNEL_MULT.items() if usual == multiples)
        image_size = next(sizes, image_size)
    sides = [
        image_size >> level
        for level in range(num_levels)
        if f"down.{level}.blocks.0.attention.qkv.weight" in weights
    ]
    middle = "middle.0.residual"
    seen_and_said = {
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
        seen = "down.0.downsample.conv1.weight" in weights
        seen_and_said["resblock_updown"] = (seen, flags.resblock_updown)
    if image_size == flags.image_size:
        seen_and_said["channel_mult"] = (multiples, flags.multiples)
        seen_and_said["attention_resolutions"] = (sides, flags.attention_sides)
    return {flag: (seen, said) for flag, (seen, said) in seen_and_said.items() if seen != said}
