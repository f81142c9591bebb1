"""The conditional input of a network.

It is a tensor, such as class labels (B,) int64, or a mapping of names to tensors, each with one row per
example. None is the input of unconditional networks; the functions return it unchanged.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Cond = Tensor | Mapping[str, Tensor]
Null = int | Mapping[str, float]
"""The value that replaces dropped conditions: the null class, or that of each tensor by its name."""


def map_cond(function: Callable[[Tensor], Tensor], cond: Cond | None) -> Cond | None:
    """The function of the tensor, or of each tensor of a mapping."""
    if cond is None or isinstance(cond, Tensor):
        return None if cond is None else function(cond)
    return {name: function(value) for name, value in cond.items()}


def rows_of(cond: Cond | None, rows: Tensor | list[int]) -> Cond | None:
    """The conditions of some examples, by number or mask."""
    return map_cond(lambda value: value[rows], cond)


def to_device(cond: Cond | None, device: torch.device | str) -> Cond | None:
    """The conditions on a device."""
    return map_cond(lambda value: value.to(device), cond)


def repeat(cond: Cond | None, times: int) -> Cond | None:
    """All B conditions ``times`` times in a row, (times B, ...)."""
    return map_cond(lambda value: value.repeat(times, *(1,) * (value.ndim - 1)), cond)


def repeat_interleave(cond: Cond | None, times: int) -> Cond | None:
    """Each of B conditions ``times`` times in a row, (B times, ...)."""
    return map_cond(lambda value: value.repeat_interleave(times, dim=0), cond)


def concatenate(conds: Sequence[Cond]) -> Cond:
    """The rows of several conditions of the same kind."""
    first = conds[0]
    if isinstance(first, Tensor):
        return torch.cat([cond for cond in conds if isinstance(cond, Tensor)])
    return {name: torch.cat([cond[name] for cond in conds if not isinstance(cond, Tensor)]) for name in first}


def drop(cond: Cond, dropped: Tensor, null: Null) -> Cond:
    """Replace conditions by their null value.

    Args:
        cond: of B examples.
        dropped: (B,) bool, the examples to replace.
        null: of the same kind as ``cond``.
    """

    def fill(value: Tensor, number: float) -> Tensor:
        return value.masked_fill(dropped.view(-1, *(1,) * (value.ndim - 1)), number)

    if isinstance(cond, Tensor):
        assert isinstance(null, int), "the null value of a tensor is a number"
        return fill(cond, null)
    assert isinstance(null, Mapping), "the null values of a mapping have its names"
    return {name: fill(value, null[name]) for name, value in cond.items()}
