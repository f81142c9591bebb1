"""Any folder of images."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, Unpack

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from nelbo.data.base import DataModule, Loading, SplitName, folder_of
from nelbo.data.examples import Examples
from nelbo.data.image_file import (
    MODES,
    ImageFiles,
    ImageTensors,
    check,
    decode_with_digest,
    is_image_name,
    readable_suffixes,
    show_path,
)
from nelbo.data.spec import DataSpec
from nelbo.option_types import Folder, PositiveInt

T = TypeVar("T")

_SPLIT_OF: dict[str, SplitName] = {  # names of folders, in any case
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_NOT_DATA = {"__MACOSX", "@eaDir", "lost+found"}  # that other programs leave behind
_BUCKET: dict[SplitName, int] = {"val": 0, "test": 1}  # of twenty; training has the others


class ImageFolder(DataModule):
    """Images found under a folder, however deep, cropped to a centred square and resized.

    Folders ``train`` (``training``), ``val`` (``valid``, ``validation``) and ``test`` (``testing``), in upper
    or lower case, are splits. Other sub-folders, of ``root`` or of the splits, are classes if every image is
    in one. Without ``train``, the training images are those outside of the other splits. A held-out split
    that has no folder is a twentieth of the training images, chosen by a hash of their names: adding images
    moves no image from one split to another. Splits come in the order of that hash, so that the first images
    of a split are not all of one class.

    Links are followed. Names that begin with a dot, and what macOS and NAS systems add, are ignored. Of an
    animation the first frame is read. Every file is read once, for the fingerprint of the data.

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
        read = (
            partial(decode_with_digest, size=self.size, channels=self.channels) if wholly else _digest_alone
        )
        kept: list[_Entry] = []
        images: list[Tensor | None] = []
        digests: list[bytes] = []
        for entry, (image, digest) in self._readable(name, read):
            kept.append(entry)
            images.append(image if self.in_memory else None)
            digests.append(digest)
        paths, label = [entry.path for entry in kept], self._labels(kept)
        if self.in_memory:
            return ImageTensors(torch.stack([x for x in images if x is not None]), label, paths, digests)
        replacement = self.skips and name == "train"
        return ImageFiles(paths, self.size, self.channels, label, digests, replacement)

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
                left_out.append(show_path(entry.path))
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
        """The images of each split.

        Raises:
            FileNotFoundError: if there are no images.
            ValueError: if it is not clear which folders are splits and which are classes.
        """
        folders = _split_folders(self.root)
        held_out: dict[SplitName, list[_Entry]] = {
            name: _list_images(folders[name]) for name in _BUCKET if name in folders
        }
        train = folders.get("train")
        others = _list_images(train or self.root, leave_out=tuple(folders.values()))
        if train is not None:
            self._check_ignored(folders)
        if not others and not held_out:
            raise FileNotFoundError(
                f"no images in {show_path(train or self.root)}: set data.root to a folder with some "
                f"({', '.join(sorted(readable_suffixes()))})"
            )
        carved: dict[int, SplitName] = {
            bucket: name for name, bucket in _BUCKET.items() if name not in held_out
        }
        splits: dict[SplitName, list[_Entry]] = {"train": []}
        splits |= held_out
        splits |= {name: [] for name in carved.values()}
        for entry in others:
            splits[carved.get(entry.digest % 20, "train")].append(entry)
        self._check_entries([entry for entries in splits.values() for entry in entries])
        for name, entries in splits.items():
            splits[name] = [entry for entry in entries if entry.path.suffix.lower() in readable_suffixes()]
        return splits

    def _check_ignored(self, folders: dict[SplitName, Path]) -> None:
        """Name the images next to the folders of splits, which are in no split.

        Raises:
            ValueError: if the only split is train, which could be a class like the folders next to it.
        """
        ignored = _list_images(self.root, leave_out=tuple(folders.values()))
        if not ignored:
            return
        example = show_path(ignored[0].path)
        if len(folders) == 1:
            raise ValueError(
                f"data.root={self.root} has {folders['train'].name}/ and {len(ignored)} images outside of "
                f"it, such as {example}: move them out of data.root if {folders['train'].name} is the "
                "training split, or rename it if it is a class"
            )
        rank_zero_warn(
            f"{len(ignored)} images of {self.root} are outside of its folders of splits and are not read, "
            f"such as {example}"
        )

    def _check_entries(self, entries: list["_Entry"]) -> None:
        """Name what would otherwise be read in another way than meant.

        Raises:
            ValueError: for splits inside classes, or a class whose name is not UTF-8.
        """
        inside = next((e for e in entries if e.class_name and e.subfolder.lower() in _SPLIT_OF), None)
        if inside is not None:
            raise ValueError(
                f"data.root={self.root} has the split {inside.subfolder} inside of {inside.class_name}: "
                f"expected splits with classes inside, or set data.root={self.root / inside.class_name}"
            )
        for name in {entry.class_name for entry in entries}:
            if show_path(name) != name:
                raise ValueError(
                    f"data.root={self.root}: the name of the class {show_path(name)} is not UTF-8: rename it"
                )
        unreadable = [e for e in entries if e.path.suffix.lower() not in readable_suffixes()]
        if unreadable:
            counts = Counter(entry.path.suffix.lower() for entry in unreadable)
            found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
            rank_zero_warn(
                f"{len(unreadable)} images of {self.root} have formats that are not decoded here and are not "
                f"read: {found}"
            )
        outside = [entry for entry in entries if not entry.class_name]
        if 0 < len(outside) < len(entries):
            rank_zero_warn(
                f"data.root={self.root} has folders of classes, but {len(outside)} images are in none, such "
                f"as {show_path(outside[0].path)}: the data is read without classes"
            )


def _digest_alone(path: Path) -> tuple[None, bytes]:
    """What is read of an image that is decoded later."""
    return None, check(path)


class _Entry(NamedTuple):
    """One image file."""

    digest: int  # of its name relative to the folder that was format_list; first, for it is the sort key
    path: Path
    class_name: str  # empty if the image lies in no sub-folder
    subfolder: str  # of the class; empty if the image lies in the class folder itself


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """The folders of splits in ``root``, by any of their usual names.

    Raises:
        ValueError: if there are two for one split.
    """
    found: dict[SplitName, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = _SPLIT_OF.get(path.name.lower())
        if name is None or not path.is_dir():
            continue
        if name in found:
            raise ValueError(
                f"data.root={root} has two folders for the {name} split, {found[name].name} and {path.name}: "
                "rename or move one of them"
            )
        found[name] = path
    return found


def _list_images(folder: Path, leave_out: tuple[Path, ...] = ()) -> list[_Entry]:
    """All images under ``folder``, in the order of their digests, those of unknown formats among them.

    Args:
        folder: that is format_list; its images do not depend on where it lies.
        leave_out: folders that are not entered.
    """
    entries = []
    for path in _walk(folder, leave_out, ()):
        if is_image_name(path):
            name = path.relative_to(folder)
            digest = int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:8])
            class_name, subfolder, *_ = (*name.parts[:-1], "", "")
            entries.append(_Entry(digest, path, class_name, subfolder))
    return sorted(entries)


def _walk(folder: Path, leave_out: tuple[Path, ...], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Everything under ``folder`` but folders. Links are followed, but not into a folder that holds them."""
    if not folder.is_dir():
        return
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _NOT_DATA or path in leave_out:
            continue
        if path.is_dir():
            yield from _walk(path, leave_out, (*above, identity))
        else:
            yield path
