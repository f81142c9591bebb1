"""Chains of fewer steps, as the flag ``timestep_respacing`` of improved-diffusion asks for them.

    ""          all T timesteps
    "250"       250 of them, evenly spread, both ends included
    "10,15,20"  T is cut into three sections of equal length, which keep 10, 15 and 20 timesteps
    "ddim250"   every i-th timestep from the first, for the smallest i that leaves 250 (as DDIM has it)

That project counts timesteps from 0, and we from 1.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, islice, repeat

import torch
from torch import Tensor

from nelbo.interop.improved_diffusion.numbers import whole_numbers

DDIM = "ddim"


def respaced_timesteps(num_steps: int, respacing: str | Sequence[int]) -> Tensor:
    """The timesteps that are kept of 1..T.

    Args:
        num_steps: T.
        respacing: see the module's text; sections may also come as a sequence of numbers.

    Returns:
        (K,) int64, increasing, in 1..T.

    Raises:
        ValueError: when ``respacing`` cannot be read, or T timesteps cannot be divided so.
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
    # the smallest stride that leaves at most as many as are wanted; one timestep alone has no stride
    stride = math.ceil(num_steps / count) if count > 1 else num_steps
    kept = list(range(0, num_steps, stride))
    if count < 2 or len(kept) != count:
        raise ValueError(
            f"timestep_respacing={respacing}: no whole stride leaves {count} of {num_steps} timesteps"
        )
    return kept


def _sections(num_steps: int, counts: list[int]) -> list[int]:
    size, longer = divmod(num_steps, len(counts))  # the first sections are one longer where it must be
    sizes = [size + (index < longer) for index in range(len(counts))]
    kept = []
    for first, size, count in zip(accumulate(sizes, initial=0), sizes, counts, strict=False):
        if not 0 <= count <= size:
            raise ValueError(f"timestep_respacing: a section of {size} timesteps cannot keep {count}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # that project adds the strides up; their rounding decides the positions midway between two timesteps
        positions = islice(accumulate(repeat(stride), initial=0.0), count)
        kept += [first + round(position) for position in positions]
    if not kept:
        raise ValueError("timestep_respacing keeps no timestep")
    return kept
