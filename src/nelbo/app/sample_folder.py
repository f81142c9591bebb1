"""The folder that samples are drawn into: single files, so that an interrupted command goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo.atomic_file import replacing, write_json
from nelbo.dashboard import pictures
from nelbo.evaluation.sample_metrics.images import as_seen

ABOUT = "sampling.json"
IMAGE_FORMATS = ("png", "npz", "none")


class SampleFolder:
    """Samples by number, on disk.

    Args:
        path: of the folder.
        about: everything that a sample depends on besides its number.
        image_format: ``png``: a file for each sample; ``npz``: ``samples.npz`` at the end, of parts that are
            kept until then; ``none``: nothing but what is made of them.
        value_range: of the data, which pixels stand for; None for data that is no image, kept as it is.

    Raises:
        ValueError: for another format, or a folder with samples of another model or other options.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        image_format: str,
        value_range: tuple[float, float] | None,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"format={image_format}: expected one of {', '.join(IMAGE_FORMATS)}")
        if image_format == "png" and value_range is None:
            raise ValueError("format=png is for images, and this model's data is none: use format=npz")
        self.path = path
        self.image_format = image_format
        self.value_range = value_range
        self.parts = path / ("images" if image_format == "png" else "parts")
        self._claim(dict(about))

    def missing(self, n: int) -> list[int]:
        """Numbers out of 0..n-1 that were not drawn yet."""
        if self.image_format == "none":
            return list(range(n))
        return [number for number in range(n) if not self._file(number).is_file()]

    def add(self, numbers: list[int], x0: Tensor) -> None:
        """Write a batch; each file is there whole or not at all."""
        if self.image_format == "none":
            return
        self.parts.mkdir(exist_ok=True)
        values = self.to_stored(x0)
        for number, value in zip(numbers, values, strict=True):
            file = self._file(number)
            # there are many: to wait for the disk each time could take longer than to draw them
            with replacing(file, durable=False) as unfinished, unfinished.open("wb") as stream:
                if self.image_format == "png":
                    pictures.to_image(value).save(stream, format="PNG")
                else:
                    np.save(stream, value.numpy())

    def to_stored(self, x0: Tensor) -> Tensor:
        """Pixels of images, (B, C, H, W) uint8; other data as it is."""
        return x0.cpu() if self.value_range is None else as_seen(x0, *self.value_range).cpu()

    def finish(self, n: int, label: Tensor | None) -> None:
        """Make one file of the parts."""
        if self.image_format != "npz":
            return
        target = self.path / "samples.npz"
        arrays = {"samples": np.stack([np.load(self._file(number)) for number in range(n)])}
        if label is not None:
            arrays["label"] = label.numpy()
        with replacing(target) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]
        for number in range(n):
            self._file(number).unlink()
        if not any(self.parts.iterdir()):
            self.parts.rmdir()

    def read(self, numbers: list[int]) -> Tensor:
        """Stored samples by number; an empty tensor for none."""
        if not numbers:
            return torch.empty(0)
        if self.image_format == "npz":
            return torch.stack([torch.from_numpy(np.load(self._file(number))) for number in numbers])
        return torch.stack([pictures.from_file(self._file(number)) for number in numbers])

    def _file(self, number: int) -> Path:
        suffix = "png" if self.image_format == "png" else "npy"
        return self.parts / f"{number:06d}.{suffix}"

    def _claim(self, about: dict[str, Any]) -> None:
        file = self.path / ABOUT
        if not file.is_file():
            write_json(file, about)
            return
        kept = json.loads(file.read_text())
        differs = [name for name in about if kept.get(name) != about[name]]
        if differs:
            found = "; ".join(f"{name}: {kept.get(name)}, not {about[name]}" for name in differs)
            raise ValueError(f"{self.path} holds other samples ({found}): choose another hydra.run.dir")
