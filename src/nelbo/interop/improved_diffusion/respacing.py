"""Chains of fewer steps: the flag ``timestep_respacing`` of improved-diffusion.

    ""          all T timesteps
    "250"       250 of them, evenly spread, both ends included
    "10,15,20"  10, 15 and 20 timesteps of three sections of equal length
    "ddim250"   every i-th timestep from the first, for the smallest i that gives 250 (DDIM)

Timesteps are 0-based in that project, and 1-based here.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, islice, repeat

import torch
from torch import Tensor

from nelbo.interop.improved_diffusion.numbers import whole_numbers

DDIM = "ddim"


def respaced_timesteps(num_steps: int, respacing: str | Sequence[int]) -> Tensor:
    """The selected timesteps of 1..T.

    Args:
        num_steps: T.
        respacing: see the module docstring; sections may also be a sequence of integers.

    Returns:
        (K,) int64, increasing, in 1..T.

    Raises:
        ValueError: if ``respacing`` cannot be parsed or is not possible with T timesteps.
    """
    if not respacing:
        kept = list(range(num_steps))
    elif isinstance(respacing, str) and respacing.startswith(DDIM):
        kept = _strided(num_steps, respacing)
    else:
        kept = _sections(num_steps, whole_numbers("timestep_respacing", respacing))
    return torch.tensor(kept) + 1


def _strided(num_steps: int, respacing: str) -> list[int]:
    (count,) = whole_numbers("timestep_respacing", [respacing.removeprefix(DDIM)])
    # the smallest stride with at most ``count`` timesteps; a single timestep has no stride
    stride = math.ceil(num_steps / count) if count > 1 else num_steps
    kept = list(range(0, num_steps, stride))
    if count < 2 or len(kept) != count:
        raise ValueError(
            f"timestep_respacing={respacing}: no whole stride leaves {count} of {num_steps} timesteps"
        )
    return kept


def _sections(num_steps: int, counts: list[int]) -> list[int]:
    size, longer = divmod(num_steps, len(counts))  # the first sections have the remainder
    sizes = [size + (index < longer) for index in range(len(counts))]
    kept = []
    for first, size, count in zip(accumulate(sizes, initial=0), sizes, counts, strict=False):
        if not 0 <= count <= size:
            raise ValueError(f"timestep_respacing: a section of {size} timesteps cannot keep {count}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # accumulated strides, as in that project: their rounding decides ties
        positions = islice(accumulate(repeat(stride), initial=0.0), count)
        kept += [first + round(position) for position in positions]
    if not kept:
        raise ValueError("timestep_respacing keeps no timestep")
    return kept
