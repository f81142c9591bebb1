"""Any folder of images."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, Unpack

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.image_file import MODES, ImageFiles, check, decode
from nelbo.data.spec import DataSpec
from nelbo.option_types import Folder, PositiveInt

T = TypeVar("T")

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
        on_corrupt: what becomes of an image that cannot be read. ``stop``: an error that names it. ``skip``:
            found by ``setup`` it is left out of its split, whose count says so; found in the middle of
            training, the next image that can be read stands in for it, so that batches keep their size and
            their order. Nothing stands in for held-out images: their bound would count another image twice.
            So ``setup`` decodes all of those.
        flip: mirror training images at random.
        loading: see :class:`DataModule`.

    Raises:
        ValueError: if ``channels`` is neither 1 nor 3, or ``on_corrupt`` neither stop nor skip.
    """

    def __init__(
        self,
        root: Folder = "datasets/images",
        size: PositiveInt = 32,
        channels: Literal[1, 3] = 3,
        in_memory: bool = True,
        on_corrupt: Literal["stop", "skip"] = "stop",
        flip: bool = True,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.flip = flip
        if channels not in MODES:
            raise ValueError(f"data.channels must be 1 (grey) or 3 (RGB), got {channels}")
        if on_corrupt not in ("stop", "skip"):
            raise ValueError(f"data.on_corrupt={on_corrupt}: expected stop or skip")
        self.root = folder_of(root)
        self.size = size
        self.channels = channels
        self.in_memory = in_memory
        self.skips = on_corrupt == "skip"

    @property
    def spec(self) -> DataSpec:
        """8-bit images; how many classes there are is found by listing the folder.

        Raises:
            FileNotFoundError: if there are no images.
        """
        shape = (self.channels, self.size, self.size)
        names = tuple(self.classes) or None
        return DataSpec(shape, levels=256, num_classes=len(names) if names else None, class_names=names)

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
        # what cannot be read shall show now, and not after hours of training
        wholly = self.in_memory or (self.skips and name != "train")
        readable = self._readable(
            name, partial(decode, size=self.size, channels=self.channels) if wholly else check
        )
        if self.in_memory:
            kept, images = zip(*readable, strict=True)
            return TensorExamples(torch.stack(images), self._labels(kept))
        kept = [entry for entry, _ in readable]
        paths = [entry.path for entry in kept]
        return ImageFiles(
            paths, self.size, self.channels, self._labels(kept), stand_in=self.skips and name == "train"
        )

    def _readable(self, name: SplitName, read: Callable[[Path], T]) -> Iterator[tuple["_Entry", T]]:
        """The images of a split that can be read, each with what was read of it.

        Raises:
            ValueError: for one that cannot, if none may be left out, or if all would be.
        """
        left_out = []
        for entry in self._entries[name]:
            try:
                content = read(entry.path)
            except ValueError:
                if not self.skips:
                    raise
                left_out.append(str(entry.path))
                continue
            yield entry, content
        self.left_out[name] = left_out
        if not left_out:
            return
        total = len(self._entries[name])
        if len(left_out) == total:
            raise ValueError(
                f"none of the {total} images of the {name} split can be read, such as {left_out[0]}"
            )
        rank_zero_warn(
            f"{len(left_out)} of the {total} images of the {name} split cannot be read and are left out, "
            f"such as {left_out[0]}"
        )

    def _labels(self, entries: Sequence["_Entry"]) -> Tensor | None:
        """The class of each image, (N,); None if there are no classes."""
        number = {class_name: i for i, class_name in enumerate(self.classes)}
        return torch.tensor([number[entry.class_name] for entry in entries]) if number else None

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
