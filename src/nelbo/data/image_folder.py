"""Any folder of images."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from nelbo.data.base import DataModule, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.image_file import MODES, ImageFiles, check
from nelbo.data.spec import DataSpec

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_BUCKET: dict[SplitName, int] = {"val": 0, "test": 1}  # of twenty; training has the others


class ImageFolder(DataModule):
    """Images found under a folder, however deep, cropped to a centred square and resized.

    Sub-folders are classes if every image is in one. If there are folders ``train/`` and ``val/`` or
    ``test/``, they are the splits, with classes below them. A held-out split that has no folder is a
    twentieth of the other images, chosen by a hash of their names: adding images moves no image from
    one split to another. Splits come in the order of that hash, so that the first images of a split
    are not all of one class.

    Args:
        root: the folder.
        size: height and width of the images that come out.
        channels: 3 (RGB) or 1 (grey).
        in_memory: decode every image once, in ``setup``, where a broken one shows before training; otherwise
            each time it is asked for, and ``setup`` reads the headers alone.
        flip: mirror training images at random.
        batch_size, eval_batch_size, num_workers, seed: see ``DataModule``.

    Raises:
        ValueError: if ``channels`` is neither 1 nor 3.
    """

    def __init__(
        self,
        root: str = "datasets/images",
        size: int = 32,
        channels: int = 3,
        in_memory: bool = True,
        flip: bool = True,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            flip=flip,
        )
        if channels not in MODES:
            raise ValueError(f"data.channels must be 1 (grey) or 3 (RGB), got {channels}")
        self.root = Path(root)
        self.size = size
        self.channels = channels
        self.in_memory = in_memory

    @property
    def spec(self) -> DataSpec:
        """8-bit images; how many classes there are is found by listing the folder.

        Raises:
            FileNotFoundError: if there are no images.
        """
        shape = (self.channels, self.size, self.size)
        return DataSpec(shape=shape, levels=256, num_classes=len(self.classes) or None)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the sub-folders, sorted, shared by all splits; empty if there are no classes."""
        names = {entry.class_name for entries in self._entries.values() for entry in entries}
        return [] if "" in names else sorted(names)

    def read_split(self, name: SplitName) -> Examples:
        """Find the images of a split, and decode them if they are to be held in memory."""
        entries = self._entries[name]
        if not entries:
            total = sum(len(entries) for entries in self._entries.values())
            raise ValueError(
                f"none of the {total} images in {self.root} fell to the {name} split: add images, or "
                f"sort them into {self.root}/train, {self.root}/val and {self.root}/test"
            )
        number = {class_name: i for i, class_name in enumerate(self.classes)}
        label = torch.tensor([number[entry.class_name] for entry in entries]) if number else None
        files = ImageFiles([entry.path for entry in entries], self.size, self.channels, label)
        if not self.in_memory:
            for entry in entries:
                check(entry.path)  # what is no image shall show now, and not after hours of training
            return files
        return TensorExamples(files.fetch(torch.arange(len(files)), epoch=0).x0, label)

    @cached_property
    def _entries(self) -> dict[SplitName, list["_Entry"]]:
        """The images of each split."""
        train = self.root / "train"
        splits: dict[SplitName, list[_Entry]] = {
            name: _list_images(self.root / name)
            for name in _BUCKET
            if train.is_dir() and (self.root / name).is_dir()
        }
        others = _list_images(train if splits else self.root)
        if not others:
            raise FileNotFoundError(
                f"no images in {train if splits else self.root}: set data.root to a folder with some "
                f"({', '.join(sorted(_SUFFIXES))})"
            )
        carved: dict[int, SplitName] = {
            bucket: name for name, bucket in _BUCKET.items() if name not in splits
        }
        for name in ("train", *carved.values()):
            splits[name] = []
        for entry in others:
            splits[carved.get(entry.digest % 20, "train")].append(entry)
        return splits


class _Entry(NamedTuple):
    """One image file."""

    digest: int  # of its name relative to the folder that was listed; first, for it is the sort key
    path: Path
    class_name: str  # empty if the image lies in no sub-folder


def _list_images(folder: Path) -> list[_Entry]:
    """All images under ``folder`` (none if there is no such folder), in the order of their digests."""
    entries = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in _SUFFIXES:
            name = path.relative_to(folder)
            digest = int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:8])
            entries.append(_Entry(digest, path, name.parts[0] if len(name.parts) > 1 else ""))
    return sorted(entries)
