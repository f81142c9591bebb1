"""The size of images in lossless image formats: PNG, WebP and JPEG XL, next to which a bound can be read."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nelbo.data import DataSpec
from nelbo.progress import ReportProgress

MOST_PIXELS_PER_SIDE = 16383  # of WebP


@dataclass(frozen=True)
class ImageCodec:
    """A lossless image format, at the strongest compression that Pillow offers.

    Attributes:
        label: its name.
        options: of ``Image.save``.
        plugin: module that adds the format to Pillow; None for its own formats.
        install: name of the package of the plugin.
    """

    label: str
    options: dict[str, Any]
    plugin: str | None = None
    install: str | None = None


CODECS = {
    "png": ImageCodec("PNG", {"format": "PNG", "optimize": True}),
    "webp": ImageCodec("WebP", {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}),
    "jxl": ImageCodec(
        "JPEG XL", {"format": "JXL", "lossless": True, "effort": 9}, "pillow_jxl", "pillow-jxl-plugin"
    ),
}


@dataclass(frozen=True)
class CodedSize:
    """The size of images in a format, whole files with their headers.

    Attributes:
        label: name of the format.
        single: bits/dim of one file for each image; None if it was not measured.
        mosaic: bits/dim of all images in one file; None if it was not measured.
        missing: why it was not measured; None if it was.
    """

    label: str
    single: float | None
    mosaic: float | None
    missing: str | None = None


def check_images(spec: DataSpec) -> None:
    """Check that image formats store the data.

    Raises:
        ValueError: for data that is not grey or RGB images of at most 256 levels.
    """
    if not spec.fits_png:
        raise ValueError(
            "baselines=true is for grey and RGB images of at most 256 levels, and this data has shape "
            f"{spec.shape} and {spec.levels or 'continuous'} levels"
        )


def coded_sizes(
    images: Tensor, progress: ReportProgress = lambda done, total: None, codecs: Sequence[str] = tuple(CODECS)
) -> dict[str, CodedSize]:
    """The size of images in each format, by its name.

    Pixels have the level indices as values. A mosaic has as many columns as rows, or one more; above 16383
    pixels a side there are several.

    Args:
        images: (N, C, H, W) uint8 level indices, C = 1 or 3.
        progress: called with (images done, of how many) over all formats.
        codecs: names of the formats.
    """
    singles = [_to_image(pixels) for pixels in images]
    mosaics = [_to_image(mosaic) for mosaic in make_mosaics(images)]
    found: dict[str, CodedSize] = {}
    for number, name in enumerate(codecs):
        codec = CODECS[name]
        if codec.plugin is not None and not _is_installed(codec.plugin):
            missing = f"not measured: pip install {codec.install}"
            found[name] = CodedSize(codec.label, None, None, missing)
            continue
        single = 0
        for done, image in enumerate(singles, start=1):
            single += file_size(image, codec)
            progress(number * len(singles) + done, len(codecs) * len(singles))
        mosaic = sum(file_size(image, codec) for image in mosaics)
        found[name] = CodedSize(codec.label, 8 * single / images.numel(), 8 * mosaic / images.numel())
    return found


def make_mosaics(images: Tensor) -> Iterator[Tensor]:
    """Images (N, C, H, W) in rows, (C, rows H, columns W); the last row ends with zeros."""
    height, width = images.shape[-2:]
    most = (MOST_PIXELS_PER_SIDE // height) * (MOST_PIXELS_PER_SIDE // width)
    for part in images.split(max(most, 1)):
        columns = min(math.ceil(math.sqrt(len(part))), max(MOST_PIXELS_PER_SIDE // width, 1))
        rows = math.ceil(len(part) / columns)
        padded = torch.zeros(rows * columns, *part.shape[1:], dtype=part.dtype)
        padded[: len(part)] = part
        grid = padded.view(rows, columns, *part.shape[1:]).permute(2, 0, 3, 1, 4)
        yield grid.reshape(part.shape[1], rows * height, columns * width)


def file_size(image: Image.Image, codec: ImageCodec) -> int:
    """Bytes of an image in a format."""
    stream = io.BytesIO()
    image.save(stream, **codec.options)
    return stream.tell()


def _is_installed(plugin: str) -> bool:
    try:
        import_module(plugin)
    except ImportError:
        return False
    return True


def _to_image(pixels: Tensor) -> Image.Image:
    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    return Image.fromarray(array.contiguous().numpy())
