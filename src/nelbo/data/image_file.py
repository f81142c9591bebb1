"""Images decoded from files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.data.examples import Examples

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""
MOST_IN_A_ROW = 100
"""Broken images side by side are a disk that went away, and not images to pass over."""


def decode(path: Path, size: int, channels: int) -> Tensor:
    """Read an image: centred square, resized (antialiased) to ``(channels, size, size)`` uint8.

    An image that already has that size comes out as it was stored.

    Raises:
        ValueError: if the file cannot be decoded, naming it.
    """
    try:
        with Image.open(path) as stored:
            upright = _of_eight_bits(ImageOps.exif_transpose(stored)).convert(MODES[channels])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    side = min(upright.size)
    left, top = ((length - side) // 2 for length in upright.size)
    square = upright.crop((left, top, left + side, top + side))
    resized = square.resize((size, size), Image.Resampling.BICUBIC)  # Pillow's is antialiased
    # np.array copies: the pixels of an image are read-only, a tensor must not be
    return torch.from_numpy(np.array(resized)).view(size, size, channels).permute(2, 0, 1)


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, which Pillow's ``convert`` would clip to white.

    Raises:
        ValueError: for pixels of 32 bits, whose range nobody knows.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257.0).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("it has pixels of 32 bits: store it with 8 or 16")
    return image


def check(path: Path) -> None:
    """Read the header of an image, and none of its pixels.

    Raises:
        ValueError: if it is not an image, naming it.
    """
    try:
        Image.open(path).close()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error


class ImageFiles(Examples):
    """Images decoded each time they are asked for.

    Args:
        paths: one file per example.
        size, channels: see ``decode``.
        label: ``(N,)`` int64, or None.
        stand_in: let the next image that can be read, in the order of the indices, stand in for one that
            cannot: which one it is depends on nothing but the files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        channels: int,
        label: Tensor | None,
        stand_in: bool = False,
    ) -> None:
        self.paths = paths
        self.size = size
        self.channels = channels
        self.label = label
        self.stand_in = stand_in

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """Decode the images at ``indices``; the same in every epoch."""
        read = [self._read(i) for i in indices.tolist()]
        shown = torch.tensor([index for index, _ in read])
        label = None if self.label is None else self.label[shown]
        return Batch(torch.stack([image for _, image in read]), label, shown)

    def _read(self, index: int) -> tuple[int, Tensor]:
        """The image at ``index``, or the one that stands in for it, with the index of what it is."""
        attempts = min(MOST_IN_A_ROW, len(self)) if self.stand_in else 1
        for i in range(index, index + attempts):
            shown = i % len(self)
            try:
                return shown, decode(self.paths[shown], self.size, self.channels)
            except ValueError as error:
                if attempts == 1:
                    raise
                last = error
        raise ValueError(f"{attempts} images in a row cannot be read; the last one: {last}")
