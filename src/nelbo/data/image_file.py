"""Images decoded from files."""

import hashlib
import mimetypes
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, features
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.data.examples import Examples, TensorExamples

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""
MOST_IN_A_ROW = 100
"""Broken images side by side are a disk that went away, and not images to pass over."""


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What Pillow calls the formats that are read. Others can start programs (EPS), or are documents."""
MOST_PIXELS = 178_956_970  # where Pillow also stops, unless another library lifts its limit
"""In an image, by its header; decoding takes 1 to 12 bytes for each."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF
_NEEDS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # libraries that Pillow may lack
# images that Pillow or the standard library's mimetypes know nothing about
_OTHER_SUFFIXES = {".arw", ".cr2", ".dng", ".exr", ".hdr", ".heic", ".heif", ".jxl", ".nef", ".psd"}


@cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes of the files that can be decoded here, in lower case."""
    formats = {name for name in FORMATS if name not in _NEEDS or features.check(_NEEDS[name])}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its suffix, of a format that is read or not."""
    suffix = path.suffix.lower()
    if suffix in readable_suffixes() or suffix in _OTHER_SUFFIXES:
        return True
    return (mimetypes.types_map.get(suffix) or "").startswith("image/")


def show_path(path: Path | str) -> str:
    """A path for a message: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, bytes]]:
    """The header of an image, and a digest of its whole file.

    Raises:
        ValueError: if the file is not an image that can be decoded, naming it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is not a regular file")  # to open a FIFO would wait for a writer
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            digest = hashlib.file_digest(stream, partial(hashlib.blake2b, digest_size=16)).digest()
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ValueError(f"it has {width} x {height} pixels, and at most {MOST_PIXELS} are read")
                yield image, digest
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"cannot read the image {show_path(path)}: its format is not known") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {show_path(path)}: {error}") from error


def decode(path: Path, size: int, channels: int) -> Tensor:
    """Read an image: centred square, resized (antialiased) to ``(channels, size, size)`` uint8.

    An image that already has that size comes out as it was stored. Of an animation the first frame is read.

    Raises:
        ValueError: if the file cannot be decoded, naming it.
    """
    return decode_with_digest(path, size, channels)[0]


def decode_with_digest(path: Path, size: int, channels: int) -> tuple[Tensor, bytes]:
    """The image as :func:`decode` reads it, and a digest of its file.

    Raises:
        ValueError: if the file cannot be decoded, naming it.
    """
    with _opened(path) as (stored, digest):
        upright = _of_eight_bits(ImageOps.exif_transpose(stored), stored).convert(MODES[channels])
    side = min(upright.size)
    left, top = ((length - side) // 2 for length in upright.size)
    square = upright.crop((left, top, left + side, top + side))
    resized = square.resize((size, size), Image.Resampling.BICUBIC)  # Pillow's is antialiased
    # np.array copies: the pixels of an image are read-only, a tensor must not be
    return torch.from_numpy(np.array(resized)).view(size, size, channels).permute(2, 0, 1), digest


def _of_eight_bits(image: Image.Image, stored: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits scaled to 8 bits, which Pillow's ``convert`` would clip to white.

    Raises:
        ValueError: for pixels of 32 bits, and for values whose largest possible one is not known.
    """
    # Pillow scales PGM of any depth to 16 bits, in its mode of 32
    if not image.mode.startswith("I;16") and not (image.mode == "I" and stored.format in ("PPM", "PNG")):
        if image.mode in ("I", "F"):
            raise ValueError("it has pixels of 32 bits: store it with 8 or 16")
        return image
    values = np.asarray(image)
    largest, found = _largest_value(stored), int(values.max())
    if largest is None and 0 < found < 4096:
        raise ValueError(
            f"it has 16 bits and no value above {found}: if it holds 12 bits or fewer, say so in its "
            "MaxSampleValue tag (TIFF), or store it with all of the 16 bits or with 8"
        )
    if found > (largest or 65535):
        raise ValueError(f"it has values up to {found}, and says that {largest} is the largest")
    return Image.fromarray((values * (255.0 / (largest or 65535))).round().astype(np.uint8))


def _largest_value(stored: Image.Image) -> int | None:
    """The value of white, where a format of 16 bits says it."""
    if isinstance(stored, TiffImagePlugin.TiffImageFile):
        bits, declared = stored.tag_v2.get(_BITS_PER_SAMPLE, 16), stored.tag_v2.get(_MAX_SAMPLE_VALUE)
        bits = bits[0] if isinstance(bits, tuple) else bits
        declared = declared[0] if isinstance(declared, tuple) else declared
        if declared:
            return int(declared)
        return 2 ** int(bits) - 1 if bits < 16 else None
    return 65535 if stored.format in ("PPM", "JPEG2000") else None  # scaled by Pillow


def check(path: Path) -> bytes:
    """Read the header of an image, and none of its pixels; the digest of its file.

    Raises:
        ValueError: if it is not an image, naming it.
    """
    with _opened(path) as (_, digest):
        return digest


class ImageTensors(TensorExamples):
    """Images decoded beforehand.

    Args:
        x: ``(N, C, H, W)`` uint8.
        label: ``(N,)`` int64, or None.
        paths: one file per example.
        digests: of the files.
    """

    def __init__(
        self, x: Tensor, label: Tensor | None, paths: Sequence[Path], digests: Sequence[bytes]
    ) -> None:
        super().__init__(x, label)
        self.paths = paths
        self.digests = digests

    def name(self, index: int) -> str:
        """The path."""
        return show_path(self.paths[index])

    def content(self, indices: Tensor) -> bytes:
        """Digests of the files."""
        return b"".join(self.digests[i] for i in indices.tolist())


class ImageFiles(Examples):
    """Images decoded each time they are asked for.

    Args:
        paths: one file per example.
        size, channels: see ``decode``.
        label: ``(N,)`` int64, or None.
        digests: of the files.
        replacement: let the next image that can be read, in the order of the indices, stand in for one that
            cannot: which one it is depends on nothing but the files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        channels: int,
        label: Tensor | None,
        digests: Sequence[bytes],
        replacement: bool = False,
    ) -> None:
        self.paths = paths
        self.digests = digests
        self.size = size
        self.channels = channels
        self.label = label
        self.replacement = replacement

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path."""
        return show_path(self.paths[index])

    def content(self, indices: Tensor) -> bytes:
        """Digests of the files as they were when the split was read."""
        return b"".join(self.digests[i] for i in indices.tolist())

    def fetch(self, indices: Tensor, epoch: int) -> Batch:
        """Decode the images at ``indices``; the same in every epoch."""
        read = [self._read(i) for i in indices.tolist()]
        shown = torch.tensor([index for index, _ in read])
        label = None if self.label is None else self.label[shown]
        return Batch(torch.stack([image for _, image in read]), label, shown)

    def _read(self, index: int) -> tuple[int, Tensor]:
        """The image at ``index``, or the one that stands in for it, with the index of what it is."""
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
