"""Conversion of NumPy arrays from files to level indices, float32 values and labels."""

import warnings

import numpy as np
import torch
from torch import Tensor

from nelbo.data.spec import DataSpec

_LEVELS_OF = {"bool": 2, "uint8": 256, "uint16": 65536}


def infer_levels(dtype: np.dtype, levels: int | None, option: str) -> int | None:
    """Number of levels of values of a dtype; None if they are continuous.

    Args:
        dtype: of the values.
        levels: their number as given by the user; None for the number of values of ``dtype``.
        option: that selects the values, for messages.

    Raises:
        ValueError: for values that are no numbers, ``levels`` of floats, or integers of more than 16 bits
            without ``levels``.
    """
    if dtype.kind == "f":
        if levels is not None:
            raise ValueError(
                f"data.levels={levels} needs integers, and {option} has {dtype} values: use null"
            )
        return None
    if dtype.kind not in "biu":
        raise ValueError(f"{option} has {dtype} values: expected integers or floats")
    found = levels or _LEVELS_OF.get(dtype.name)
    if found is None:
        raise ValueError(
            f"{option} has {dtype} values: set data.levels to the number of their levels, with values "
            "0..levels-1, or store floats for continuous data"
        )
    return found


def with_channels(shape: tuple[int, ...], channel_axis: int | None) -> tuple[int, ...]:
    """Shape of one example (C, ...) from its stored shape without the batch, see :func:`to_examples`."""
    if channel_axis is None:
        return (1, *shape)
    return shape if channel_axis == 1 else (shape[-1], *shape[:-1])


def example_shape(shape: tuple[int, ...], channel_axis: int | None, option: str) -> tuple[int, ...]:
    """:func:`with_channels`; warns about images (H, W, 1), (H, W, 3) or (H, W, 4) that are read as (C, H, W).

    Args:
        shape: of one stored example.
        channel_axis: see :func:`to_examples`.
        option: that selects the values, for the message.
    """
    counts = (1, 3, 4)
    if channel_axis == 1 and len(shape) == 3 and shape[-1] in counts and shape[0] not in counts:
        warnings.warn(
            f"{option} has examples of the shape {shape}, read as images of {shape[1]}x{shape[2]} with "
            f"{shape[0]} channels; if the channels are the last axis, add data.channel_axis=-1",
            stacklevel=2,
        )
    return with_channels(shape, channel_axis)


def to_examples(values: np.ndarray, channel_axis: int | None, spec: DataSpec, where: str) -> Tensor:
    """Stored values as a batch of examples.

    Args:
        values: (B, ...) as stored.
        channel_axis: 1 if the channels are the first axis of an example, -1 if they are the last; None
            inserts one channel.
        spec: of the data.
        where: the place of the values, for messages.

    Returns:
        (B, *spec.shape), level indices or float32 values.

    Raises:
        ValueError: for values that are no levels, or not finite.
    """
    if channel_axis is None:
        values = values[:, None]
    elif channel_axis == -1:
        values = np.moveaxis(values, -1, 1)
    if spec.levels is None:
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if not x.isfinite().all():
            raise ValueError(f"{where} has values that are not finite")
        return x
    last = spec.levels - 1
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= last:
        raise ValueError(
            f"{where} has values of {values.min()} to {values.max()}; with {spec.levels} levels they must be "
            f"0 to {last}: set data.levels"
        )
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.uint8 if last < 256 else np.uint16))


def to_labels(values: np.ndarray, n: int, option: str) -> Tensor:
    """Labels of ``n`` examples, (n,) int64.

    Raises:
        ValueError: for values that are no integers from 0, or not one per example.
    """
    if values.dtype.kind not in "biu":
        raise ValueError(f"{option} has {values.dtype} values: labels must be integers 0, 1, ...")
    if values.shape != (n,):
        raise ValueError(
            f"{option} has the shape {values.shape}: expected {(n,)}, one label for each example"
        )
    if n and values.min() < 0:
        raise ValueError(f"{option} has the label {values.min()}: labels must be integers 0, 1, ...")
    return torch.from_numpy(values.astype(np.int64))
