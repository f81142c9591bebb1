"""Images in a folder, with optional splits and classes by subfolder."""

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

from nelbo.data.base import DataModule, Loading, folder_of
from nelbo.data.examples import Examples
from nelbo.data.image_file import (
    MODES,
    ImageFiles,
    ImageTensors,
    check,
    decode_with_digest,
    height_and_width,
    is_image_name,
    readable_suffixes,
    show_path,
)
from nelbo.data.spec import DataSpec
from nelbo.data.split import SPLIT_OF, SplitName
from nelbo.option_types import Folder, ImageSize

T = TypeVar("T")

_NOT_DATA = {"__MACOSX", "@eaDir", "lost+found"}  # folders of operating systems
_BUCKET: dict[SplitName, int] = {"val": 0, "test": 1}  # of 20; training has the rest


class ImageFolder(DataModule):
    """All images in a folder and its subfolders, cropped around their centre and resized.

    Folders ``train`` (``training``), ``val`` (``valid``, ``validation``) and ``test`` (``testing``), in upper
    or lower case, are splits. Other subfolders, of ``root`` or of the splits, are classes if every image is
    in one. Without ``train``, the training images are those outside of the other splits. A held-out split
    without a folder is a twentieth of the training images, selected by a hash of their names, so that adding
    images does not move others between splits. Splits are sorted by this hash, so that their first images are
    of all classes.

    Links are followed. Names that begin with a dot, and files added by macOS and NAS systems, are ignored. Of
    an animation, the first frame is read. Every file is read once, for the fingerprint of the data.

    Args:
        root: the folder.
        size: of the resized images: the side of a square, or [height, width].
        channels: 3 (RGB) or 1 (grey).
        in_memory: decode every image once, in ``setup``, so that errors are reported before training.
            Otherwise ``setup`` reads only the headers, and images are decoded when they are fetched.
        on_corrupt: handling of unreadable images. ``stop``: an error. ``skip``: an image that ``setup``
            cannot read is removed from its split; an image that fails during training is replaced by the next
            readable one, so that batches keep their size and order. Held-out images are not replaced, because
            the bound would count another image twice, so ``setup`` decodes all of them.
        flip: mirror training images at random.
        loading: see :class:`DataModule`.

    Raises:
        ValueError: if ``channels`` is neither 1 nor 3, or ``on_corrupt`` neither stop nor skip.
    """

    def __init__(
        self,
        root: Folder = "datasets/images",
        size: ImageSize = 32,
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
        self.size = height_and_width(size)
        self.channels = channels
        self.in_memory = in_memory
        self.skips = on_corrupt == "skip"

    @property
    def spec(self) -> DataSpec:
        """8-bit images; the classes are those of the folder.

        Raises:
            FileNotFoundError: if there are no images.
        """
        shape = (self.channels, *self.size)
        names = tuple(self.classes) or None
        return DataSpec(shape, levels=256, num_classes=len(names) if names else None, class_names=names)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the subfolders of all splits, sorted; empty if there are no classes."""
        names = {entry.class_name for entries in self._entries.values() for entry in entries}
        return [] if "" in names else sorted(names)

    def read_split(self, name: SplitName) -> Examples:
        """List the images of a split, and decode them with ``in_memory``."""
        entries = self._entries[name]
        if not entries:
            total = sum(len(entries) for entries in self._entries.values())
            raise ValueError(
                f"none of the {total} images in {self.root} is in the {name} split: add images, or "
                f"sort them into {self.root}/train, {self.root}/val and {self.root}/test"
            )
        # with skip, decode held-out images now: they cannot be replaced later
        if self.in_memory or (self.skips and name != "train"):
            read = partial(decode_with_digest, size=self.size, channels=self.channels)
        else:
            read = lambda path: (None, check(path))  # noqa: E731
        kept: list[_Entry] = []
        images: list[Tensor | None] = []
        digests: list[bytes] = []
        for entry, (image, digest) in self._readable(name, read):
            kept.append(entry)
            images.append(image if self.in_memory else None)
            digests.append(digest)
        paths, label = [entry.path for entry in kept], self._labels(kept)
        if self.in_memory:
            return ImageTensors(paths, digests, label, torch.stack([x for x in images if x is not None]))
        replacement = self.skips and name == "train"
        return ImageFiles(paths, digests, label, self.size, self.channels, replacement)

    def _readable(self, name: SplitName, read: Callable[[Path], T]) -> Iterator[tuple["_Entry", T]]:
        """The readable images of a split, each with the result of ``read``.

        Raises:
            ValueError: for an unreadable image with ``on_corrupt=stop``, or if all are unreadable.
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
            ValueError: if splits and classes cannot be told apart.
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
            if not self.root.is_dir():
                raise FileNotFoundError(f"data.root={show_path(self.root)}: there is no such folder")
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
        """Warn about images that are outside of the folders of the splits.

        Raises:
            ValueError: if the only split is train, which could also be a class.
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
        """Warn about images in unreadable formats or outside of the classes.

        Raises:
            ValueError: for splits inside classes, or a class whose name is not UTF-8.
        """
        inside = next((e for e in entries if e.class_name and e.subfolder.lower() in SPLIT_OF), None)
        if inside is not None:
            raise ValueError(
                f"data.root={self.root} has the split {inside.subfolder} inside {inside.class_name}: "
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
                f"{len(unreadable)} images of {self.root} have formats that cannot be decoded and are "
                f"ignored: {found}"
            )
        outside = [entry for entry in entries if not entry.class_name]
        if 0 < len(outside) < len(entries):
            rank_zero_warn(
                f"data.root={self.root} has folders of classes, but {len(outside)} images are in none, "
                f"such as {show_path(outside[0].path)}: the data is read without classes"
            )


class _Entry(NamedTuple):
    """One image file."""

    digest: int  # of its path relative to the folder; the sort key
    path: Path
    class_name: str  # empty if the image lies in no sub-folder
    subfolder: str  # of the class; empty if the image lies in the class folder itself


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """The folders of the splits in ``root``.

    Raises:
        ValueError: if a split has two folders.
    """
    found: dict[SplitName, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = SPLIT_OF.get(path.name.lower())
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
    """All images under ``folder``, of unreadable formats too, sorted by digest.

    Args:
        folder: the folder; its own path does not affect the digests.
        leave_out: folders to skip.
    """
    entries = []
    for path in _files(folder, leave_out, ()):
        if is_image_name(path):
            name = path.relative_to(folder)
            digest = int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:8])
            class_name, subfolder, *_ = (*name.parts[:-1], "", "")
            entries.append(_Entry(digest, path, class_name, subfolder))
    return sorted(entries)


def _files(folder: Path, leave_out: tuple[Path, ...], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """All files under ``folder``. Links are followed, except to a folder that contains them."""
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
            yield from _files(path, leave_out, (*above, identity))
        else:
            yield path
