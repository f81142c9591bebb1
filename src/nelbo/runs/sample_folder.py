"""The folder of samples: single files, so that an interrupted command can be resumed."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from nelbo import array_file
from nelbo.atomic_file import (
    DamagedFileError,
    open_regular,
    read_bytes,
    read_json,
    replacing,
    sha256_of,
    write_json,
)
from nelbo.cond import Cond
from nelbo.data.spec import DataSpec
from nelbo.runs import images as grids

METADATA_FILE, SAMPLES_FILE = "sampling.json", "samples.npz"
CHECKSUMS = "SHA256SUMS"  # of the single files, as sha256sum writes and verifies them
MAX_BYTES = 2**30  # of the list of checksums
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
IMAGE_FORMATS = ("png", "npz", "none")


class SampleFolder:
    """Samples by number, on disk.

    Args:
        path: of the folder.
        metadata: everything that a sample depends on, except its number.
        image_format: ``png``: a file for each sample; ``npz``: ``samples.npz`` at the end, of parts that are
            kept until then; ``none``: nothing but what is made of them.
        spec: of the data, by which samples are stored.
        cond: of the samples, by number; None for an unconditional model. ``samples.npz`` has ``label`` (n,),
            or ``cond_NAME`` (n, ...) of each tensor of a mapping; PNG files have the class in their metadata.

    Raises:
        ValueError: for another format, or a folder with samples of another model or other options.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, Any],
        image_format: str,
        spec: DataSpec,
        cond: Cond | None = None,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"format={image_format}: expected one of auto, {', '.join(IMAGE_FORMATS)}")
        if image_format == "png" and not spec.fits_png:
            raise ValueError(
                "format=png is for grey and RGB images of at most 256 levels, and this data has shape "
                f"{spec.shape} and {spec.levels or 'continuous'} levels: use format=npz"
            )
        self.path = path
        self.image_format = image_format
        self.spec = spec
        self.cond = cond
        self.parts = path / ("images" if image_format == "png" else "parts")
        self._claim(dict(metadata))

    def missing(self, n: int) -> list[int]:
        """Numbers out of 0..n-1 that were not drawn yet, or whose file is damaged."""
        if self.image_format == "none":
            return list(range(n))
        try:
            lines = read_bytes(self.path / CHECKSUMS, MAX_BYTES).decode("ascii", "replace").splitlines()
        except FileNotFoundError:  # nothing was drawn yet
            lines = []
        checksums = {found[2]: found[1] for line in lines if (found := LINE.fullmatch(line))}

        def is_whole(number: int) -> bool:
            file = self._file(number)
            try:
                expected = checksums.get(file.relative_to(self.path).as_posix())
                if expected is not None:
                    return sha256_of(file) == expected
                return tuple(self._stored(number).shape) == self.spec.shape
            except Exception:  # damaged content can raise anything
                return False

        return [number for number in range(len(self._finished), n) if not is_whole(number)]

    def add(self, numbers: list[int], x0: Tensor) -> None:
        """Write a batch, each file atomically, and their checksums.

        Only the checksums wait for the disk: a file that a power failure damages is drawn again.
        """
        if self.image_format == "none":
            return
        self.parts.mkdir(exist_ok=True)
        values = self.to_stored(x0)
        for number, value in zip(numbers, values, strict=True):
            file = self._file(number)
            with replacing(file, durable=False) as unfinished, unfinished.open("wb") as stream:
                if self.image_format == "png":
                    pixels = self.spec.to_pixels(self.spec.from_levels(value[None]))[0]
                    grids.to_image(pixels).save(stream, format="PNG", pnginfo=self._metadata(number))
                else:
                    np.save(stream, value.numpy())
        files = map(self._file, numbers)
        lines = (f"{sha256_of(file)}  {file.relative_to(self.path).as_posix()}\n" for file in files)
        with (self.path / CHECKSUMS).open("ab", buffering=0) as stream:  # which all processes append to
            stream.write("".join(lines).encode())
            os.fsync(stream.fileno())

    def to_stored(self, x0: Tensor) -> Tensor:
        """Values (B, ...) as they are stored: level indices of quantised data, float32 of continuous data."""
        return self.spec.to_levels(x0).cpu()

    def finish(self, n: int) -> None:
        """Make one file of the parts, and of the samples that were in it before."""
        before = len(self._finished)
        if self.image_format != "npz" or n <= before:
            return
        parts = [self._stored(number).numpy() for number in range(before, n)]
        target = self.path / SAMPLES_FILE
        arrays = {"samples": np.stack([*self._finished, *parts])}
        if isinstance(self.cond, Tensor):
            arrays["label"] = self.cond[:n].numpy()
        elif self.cond is not None:
            arrays |= {f"cond_{name}": value[:n].numpy() for name, value in self.cond.items()}
        with replacing(target) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]
        for number in range(before, n):
            self._file(number).unlink()
        if not any(self.parts.iterdir()):
            self.parts.rmdir()
            (self.path / CHECKSUMS).unlink(missing_ok=True)

    def read(self, numbers: list[int]) -> Tensor:
        """Stored samples by number; an empty tensor for none."""
        if not numbers:
            return torch.empty(0)
        if self.image_format == "npz":
            finished = self._finished
            return torch.stack(
                [torch.from_numpy(finished[i]) if i < len(finished) else self._stored(i) for i in numbers]
            )
        pixels = torch.stack([self._stored(number) for number in numbers])
        return self.spec.to_levels(pixels / 127.5 - 1.0)

    def _metadata(self, number: int) -> PngInfo | None:
        """The class of a sample by name, or by number where classes have no names."""
        if not isinstance(self.cond, Tensor):
            return None
        label, metadata = int(self.cond[number]), PngInfo()
        metadata.add_itxt(
            "class", str(label) if self.spec.class_names is None else self.spec.class_names[label]
        )
        return metadata

    def _stored(self, number: int) -> Tensor:
        """The content of a single file: uint8 pixels or stored values, (...)."""
        if self.image_format == "png":
            return grids.from_file(self._file(number))
        with open_regular(self._file(number)) as stream:
            return torch.from_numpy(np.load(stream))

    @cached_property
    def _finished(self) -> np.ndarray:
        """Samples (n, ...) of ``samples.npz`` as this command found it; none where it did not."""
        path = self.path / SAMPLES_FILE
        if self.image_format != "npz" or not path.is_file():
            return np.empty(0)
        try:
            with array_file.opened(path) as file:
                return file["samples"]
        except DamagedFileError as error:
            raise DamagedFileError(
                f"{path} is damaged: remove it to draw its samples again, or choose another hydra.run.dir"
            ) from error

    def _file(self, number: int) -> Path:
        suffix = "png" if self.image_format == "png" else "npy"
        return self.parts / f"{number:06d}.{suffix}"

    def _claim(self, metadata: dict[str, Any]) -> None:
        file = self.path / METADATA_FILE
        if not file.is_file():
            write_json(file, metadata)
            return
        kept = read_json(file)
        differs = [name for name in metadata if kept.get(name) != metadata[name]]
        if differs:
            found = "; ".join(f"{name}: {kept.get(name)}, not {metadata[name]}" for name in differs)
            raise ValueError(f"{self.path} holds other samples ({found}): choose another hydra.run.dir")
