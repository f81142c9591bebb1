"""Decoding of image files, and splits made of them."""

import hashlib
import io
import mimetypes
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, features
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.data.examples import Examples

MODES = {1: "L", 3: "RGB"}
"""Mode of Pillow for each number of channels."""
MOST_IN_A_ROW = 100
"""Consecutive unreadable images; more are an error, such as a disk that was removed."""


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats of Pillow that are read. Others can start programs (EPS), or are documents."""
MOST_PIXELS = 178_956_970  # the limit of Pillow, which other libraries may change
"""Pixels of an image by its header; decoding needs 1 to 12 bytes per pixel."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF
_NEEDS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # optional libraries of Pillow
# images that are neither in Pillow nor in mimetypes
_OTHER_SUFFIXES = {".arw", ".cr2", ".dng", ".exr", ".hdr", ".heic", ".heif", ".jxl", ".nef", ".psd"}


@cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes of the files that this installation can decode, in lower case."""
    formats = {name for name in FORMATS if name not in _NEEDS or features.check(_NEEDS[name])}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its suffix, readable or not."""
    suffix = path.suffix.lower()
    if suffix in readable_suffixes() or suffix in _OTHER_SUFFIXES:
        return True
    return (mimetypes.types_map.get(suffix) or "").startswith("image/")


def show_path(path: Path | str) -> str:
    """A path for a message, with bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, bytes]]:
    """An image with its header read, and the digest of its file.

    Raises:
        ValueError: if the file cannot be decoded; the message names it.
    """
    with _reported(show_path(path)):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is not a regular file")  # opening a FIFO would block
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, partial(hashlib.blake2b, digest_size=16)).digest()
            stream.seek(0)
            with _open_image(stream) as image:
                yield image, digest


@contextmanager
def _open_image(stream: IO[bytes]) -> Iterator[Image.Image]:
    """An image with its header read.

    Raises:
        ValueError: for too many pixels, and what Pillow raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
        with Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels; the limit is {MOST_PIXELS}")
            yield image


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Report what Pillow raises.

    Raises:
        ValueError: naming the image.
    """
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"cannot read the image {name}: unknown format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {name}: {error}") from error


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """The two numbers of an ``ImageSize``: those of a square, or [height, width]."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def decode(path: Path, size: int | Sequence[int], channels: int) -> Tensor:
    """Read an image, crop its centre to the proportions of ``size`` and resize it (bicubic, antialiased).

    An image of this size is returned unchanged. Of an animation, the first frame is read.

    Returns:
        ``(channels, height, width)`` uint8.

    Raises:
        ValueError: if the file cannot be decoded; the message names it.
    """
    return decode_with_digest(path, size, channels)[0]


def decode_with_digest(path: Path, size: int | Sequence[int], channels: int) -> tuple[Tensor, bytes]:
    """The image as read by :func:`decode`, and the digest of its file.

    Raises:
        ValueError: if the file cannot be decoded; the message names it.
    """
    with _opened(path) as (stored, digest):
        return _fitted(stored, height_and_width(size), channels), digest


def read_pixels(path: Path) -> Tensor:
    """The pixels of an image as they are stored, (C, H, W) uint8.

    Raises:
        ValueError: if the file cannot be decoded, is not grey or RGB with 8 bits, or has several images; the
            message names it.
    """
    with _opened(path) as (stored, _):
        if getattr(stored, "n_frames", 1) > 1:
            raise ValueError("it has several images, such as an animation: store each in a file of its own")
        if stored.mode not in MODES.values():
            raise ValueError(
                f"its pixels are {stored.mode}, and only grey or RGB ones of 8 bits stay unchanged"
            )
        return torch.from_numpy(np.array(stored)).view(stored.height, stored.width, -1).permute(2, 0, 1)


def decode_bytes(content: bytes | None, size: tuple[int, int] | None, channels: int, name: str) -> Tensor:
    """Decode an encoded image.

    Args:
        content: the bytes of a file; None for a missing one, which raises.
        size: (height, width) to crop and resize to, as in :func:`decode`; None for those of the image.
        channels: 1 (grey) or 3 (RGB).
        name: of the image, for messages.

    Returns:
        ``(channels, H, W)`` uint8.

    Raises:
        ValueError: if the image cannot be decoded; the message names it.
    """
    with _reported(name), _open_image(_stream(content)) as stored:
        return _fitted(stored, size, channels)


def image_shape(content: bytes | None, name: str) -> tuple[int, int, int]:
    """(C, H, W) of an encoded image, with 1 (grey) or 3 channels.

    Raises:
        ValueError: if the image cannot be decoded; the message names it.
    """
    with _reported(name), _open_image(_stream(content)) as stored:
        width, height = ImageOps.exif_transpose(stored).size
        return 1 if stored.mode[0] in "1LIF" else 3, height, width


def _stream(content: bytes | None) -> IO[bytes]:
    if content is None:
        raise ValueError("it is missing, or stored as a path: store the images themselves")
    return io.BytesIO(content)


def _fitted(stored: Image.Image, size: tuple[int, int] | None, channels: int) -> Tensor:
    """The centre of an image of the proportions of ``size``, resized: (channels, H, W) uint8."""
    image = _of_eight_bits(ImageOps.exif_transpose(stored), stored).convert(MODES[channels])
    width, height = image.size
    new_height, new_width = size or (height, width)
    # the largest centred rectangle of these proportions
    cropped_width = min(width, height * new_width // new_height)
    cropped_height = min(height, width * new_height // new_width)
    left, top = (width - cropped_width) // 2, (height - cropped_height) // 2
    part = image.crop((left, top, left + cropped_width, top + cropped_height))
    resized = part.resize((new_width, new_height), Image.Resampling.BICUBIC)  # antialiased
    # np.array copies: the pixels of an image are read-only
    return torch.from_numpy(np.array(resized)).view(new_height, new_width, channels).permute(2, 0, 1)


def _of_eight_bits(image: Image.Image, stored: Image.Image) -> Image.Image:
    """Scale grey values of 9 to 16 bits to 8 bits; ``convert`` of Pillow would clip them.

    Raises:
        ValueError: for pixels of 32 bits, and if the value of white cannot be determined.
    """
    # Pillow scales PGM of any depth to 16 bits, in the mode I of 32 bits
    if not image.mode.startswith("I;16") and not (image.mode == "I" and stored.format in ("PPM", "PNG")):
        if image.mode in ("I", "F"):
            raise ValueError("it has pixels of 32 bits: store it with 8 or 16")
        return image
    values = np.asarray(image)
    largest, found = _largest_value(stored), int(values.max())
    if largest is None and 0 < found < 4096:
        raise ValueError(
            f"it has 16 bits and no value above {found}: if it has 12 bits or fewer, set the tag "
            "MaxSampleValue (TIFF), or store it with the full range of 16 or 8 bits"
        )
    if found > (largest or 65535):
        raise ValueError(f"it has values up to {found}, but declares {largest} as the largest")
    return Image.fromarray((values * (255.0 / (largest or 65535))).round().astype(np.uint8))


def _largest_value(stored: Image.Image) -> int | None:
    """The declared value of white of a 16-bit image; None if there is none."""
    if isinstance(stored, TiffImagePlugin.TiffImageFile):
        bits, declared = stored.tag_v2.get(_BITS_PER_SAMPLE, 16), stored.tag_v2.get(_MAX_SAMPLE_VALUE)
        bits = bits[0] if isinstance(bits, tuple) else bits
        declared = declared[0] if isinstance(declared, tuple) else declared
        if declared:
            return int(declared)
        return 2 ** int(bits) - 1 if bits < 16 else None
    return 65535 if stored.format in ("PPM", "JPEG2000") else None  # scaled by Pillow


def check(path: Path) -> bytes:
    """Read only the header of an image; the digest of its file.

    Raises:
        ValueError: if it is not an image; the message names it.
    """
    with _opened(path) as (_, digest):
        return digest


class ImageFiles(Examples):
    """Images decoded at every ``fetch``.

    Args:
        paths: one file per example.
        digests: of the files, when the split was read.
        label: ``(N,)`` int64, or None.
        size, channels: see ``decode``.
        replacement: replace an unreadable image by the next readable one, in the order of the indices.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        digests: Sequence[bytes],
        label: Tensor | None,
        size: int | Sequence[int],
        channels: int,
        replacement: bool = False,
    ) -> None:
        self.paths = paths
        self.digests = digests
        self.label = label
        self.size = size
        self.channels = channels
        self.replacement = replacement

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path."""
        return show_path(self.paths[index])

    def content(self, indices: Tensor) -> bytes:
        """Digests of the files."""
        return b"".join(self.digests[i] for i in indices.tolist())

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """Decode the images at ``indices`` (B,)."""
        read = [self._read(i) for i in indices.tolist()]
        shown = torch.tensor([index for index, _ in read])
        label = None if self.label is None else self.label[shown]
        return Batch(torch.stack([image for _, image in read]), label, shown)

    def _read(self, index: int) -> tuple[int, Tensor]:
        """The image at ``index`` or its replacement, with the index of the image that was read."""
        attempts = min(MOST_IN_A_ROW, len(self)) if self.replacement else 1
        for i in range(index, index + attempts):
            shown = i % len(self)
            try:
                return shown, decode(self.paths[shown], self.size, self.channels)
            except ValueError as error:
                if attempts == 1:
                    raise
                last = error
        raise ValueError(f"{attempts} images in a row cannot be read; the last one: {last}")


class ImageTensors(ImageFiles):
    """Images decoded in advance.

    Args:
        paths, digests, label: see :class:`ImageFiles`.
        x: ``(N, C, H, W)`` uint8.
    """

    def __init__(
        self, paths: Sequence[Path], digests: Sequence[bytes], label: Tensor | None, x: Tensor
    ) -> None:
        super().__init__(paths, digests, label, size=x.shape[-2:], channels=x.shape[1])
        self.x = x

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """The images at ``indices`` (B,)."""
        return Batch(self.x[indices], None if self.label is None else self.label[indices], indices)
