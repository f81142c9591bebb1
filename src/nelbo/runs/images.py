"""Samples as images: single images, grids, animations, strips from noise to data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from nelbo.atomic_file import open_regular, replacing

T = TypeVar("T")

SMALLEST = 32  # images are enlarged to at least this many pixels in grids
GIF_FRAMES = 40
MILLISECONDS = 80  # for each frame except the last
LAST_FRAME = 2000
STRIP_COLUMNS = 10


def to_image(pixels: Tensor) -> Image.Image:
    """(C, H, W) uint8, grey or RGB, as an image."""
    if pixels.shape[0] == 1:
        return Image.fromarray(pixels[0].numpy())
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_file(path: Path) -> Tensor:
    """A PNG file as (C, H, W) uint8."""
    with open_regular(path) as stream, Image.open(stream, formats=("PNG",)) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def grid(pixels: Tensor, columns: int | None = None) -> Image.Image:
    """(B, C, H, W) uint8 images side by side, small ones enlarged."""
    enlarge = max(1, SMALLEST // pixels.shape[-1])
    large = pixels.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    return to_image(make_grid(large, nrow=columns, padding=enlarge, pad_value=128))


def save_png(path: Path, image: Image.Image) -> None:
    """Write an image, atomically: reports read the folder while a run writes it."""
    with replacing(path) as unfinished:
        image.save(unfinished, format="PNG")


def save_gif(path: Path, frames: Sequence[Tensor]) -> None:
    """Write an animation of grids, each (B, C, H, W) uint8, atomically."""
    images = [grid(frame) for frame in evenly_spaced(frames, GIF_FRAMES)]
    durations = [MILLISECONDS] * (len(images) - 1) + [LAST_FRAME]
    with replacing(path) as unfinished:
        images[0].save(
            unfinished, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0
        )


def strip(frames: Sequence[Tensor]) -> Image.Image:
    """A row for each sample, from noise on the left to data on the right; frames are (B, C, H, W) uint8."""
    chosen = evenly_spaced(frames, STRIP_COLUMNS)
    return grid(torch.stack(chosen, dim=1).flatten(0, 1), columns=len(chosen))


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of the items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
