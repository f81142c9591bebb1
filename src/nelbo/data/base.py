"""Base class of the data modules: splits, loaders, and conversion of level indices to values."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, get_args

import torch
from lightning import LightningDataModule
from torch import Tensor

from nelbo.cond import Cond, concatenate
from nelbo.data.batch import Batch
from nelbo.data.examples import Examples, Flipped, RandomSubset, Relabeled
from nelbo.data.loader import Loader
from nelbo.data.order import BlockShuffledOrder, SequentialOrder, ShuffledOrder
from nelbo.data.proportions import proportional_labels
from nelbo.data.record import DataRecord, format_names
from nelbo.data.spec import DataSpec
from nelbo.data.split import SplitName
from nelbo.option_types import NonNegativeInt, PositiveInt, Seed
from nelbo.randomness import generator

BLOCK = 1024  # examples hashed at a time
_SPLITS_OF_STAGE: dict[str, tuple[SplitName, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}


class Loading(TypedDict, total=False):
    """Arguments common to all data modules, see :class:`DataModule`."""

    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    num_workers: NonNegativeInt
    seed: Seed


class DataModule(LightningDataModule, ABC):
    """Data for training and evaluation. A subclass defines ``spec`` and ``read_split``.

    The loaders distribute batches among processes and track their position. They are no torch DataLoaders, so
    Lightning does not replace their sampler.

    Args:
        batch_size: examples in a training step, over all processes.
        eval_batch_size: examples in an evaluation step, over all processes.
        num_workers: worker processes of each loader; 0 fetches in the main process, which is fastest for data
            in memory.
        seed: of the order and the augmentation of training. The content of the splits does not depend on it.

    Attributes:
        flip: mirror training images at random; set by subclasses.
        left_out: names of unreadable examples that were removed from a split.
        root: the folder of the data; set by subclasses that read files.
        buffer: examples that are shuffled together, of data that is read in blocks; set by subclasses.
    """

    def __init__(
        self,
        *,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt = 512,
        num_workers: NonNegativeInt = 0,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.flip = False
        self.buffer = 0
        self.left_out: dict[SplitName, list[str]] = {}
        self._splits: dict[SplitName, Examples] = {}
        self._fingerprints: dict[SplitName, str] = {}
        self._class_names: tuple[str, ...] | None = None

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """Shape, range and levels; available before ``setup``."""

    @abstractmethod
    def read_split(self, name: SplitName) -> Examples:
        """Read one split, without augmentation.

        Raises:
            FileNotFoundError: if there is no data; the message names the folder.
            ValueError: if it cannot be read.
        """

    def split(self, name: SplitName) -> Examples:
        """The examples of one split, without augmentation. They are read at the first call.

        Raises:
            ValueError: for an unknown split, or examples that do not agree with ``spec``.
        """
        if name not in get_args(SplitName):
            choices = ", ".join(get_args(SplitName))
            raise ValueError(f"there is no split {name!r}: choose one of {choices}")
        if name not in self._splits:
            examples = self.read_split(name)
            self._check_same_examples(name, examples)
            names = self.spec.class_names
            if names is not None and names != self.class_names:
                assert self.class_names is not None, "map_classes takes names"
                numbers = torch.tensor([self.class_names.index(own) for own in names])
                examples = Relabeled(examples, numbers)
            self._splits[name] = examples
        return self._splits[name]

    def _check_same_examples(self, name: SplitName, examples: Examples) -> None:
        """Compare the first example with ``spec``.

        Raises:
            ValueError: if its shape differs, its values are not level indices, or it cannot be flipped.
        """
        (x,), cond, _ = examples.fetch(torch.tensor([0]), 0)
        spec = self.spec
        if self.flip and not spec.is_image:
            raise ValueError(
                f"data.flip=true mirrors images (C, H, W), and this data has shape {spec.shape}: "
                "use data.flip=false"
            )
        subject = f"the {name} split of {type(self).__name__}"
        if tuple(x.shape) != tuple(spec.shape):
            raise ValueError(
                f"{subject} has examples of shape {tuple(x.shape)}, but spec.shape is {spec.shape}"
            )
        if spec.cond is not None or isinstance(cond, Mapping):
            try:
                spec.check_cond(cond, 1)
            except ValueError as error:
                raise ValueError(f"{subject}: {error}, for one example") from error
        if spec.levels is None:
            return
        low, high = x.double().aminmax()  # in float64: torch has no extremes of uint16
        if x.is_floating_point() or not 0 <= low <= high < spec.levels:
            raise ValueError(
                f"{subject} has {x.dtype} values of {low:g} to {high:g}; with spec.levels={spec.levels} "
                f"they must be whole numbers from 0 to {spec.levels - 1}"
            )

    def subset(self, name: SplitName, size: int) -> None:
        """Replace a split by a random subset of itself, which depends on the two sizes only.

        Raises:
            ValueError: if ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"max_examples={size} must be at least 1")
        self._splits[name] = RandomSubset(self.split(name), size)
        self._fingerprints.pop(name, None)

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of ``stage`` (None: all), so that errors in the data are reported at the start."""
        names = get_args(SplitName) if stage is None else _SPLITS_OF_STAGE.get(stage, ())
        for name in names:
            self.split(name)

    def train_dataloader(self) -> Loader:
        """Shuffled, augmented batches. An incomplete last batch of an epoch is dropped."""
        examples = self.split("train")
        if self.flip:
            examples = Flipped(examples, self.seed)
        n, sizes, position = len(examples), examples.block_sizes, self._position()
        order = (
            ShuffledOrder(n, self.batch_size, self.seed, *position)
            if sizes is None
            else BlockShuffledOrder(n, self.batch_size, self.seed, *position, sizes, self.buffer)
        )
        return Loader(examples, order, self.num_workers, self._batches_in_flight)

    def eval_dataloader(self, name: SplitName, position: tuple[int, int] | None = None) -> Loader:
        """Every example of any split once, in order, without augmentation.

        Args:
            name: of the split.
            position: (rank, number of processes); None: those of the Trainer.

        Raises:
            ValueError: if there are fewer examples than processes of the Trainer.
        """
        examples, world_size = self.split(name), self._position()[1]
        if position is None and len(examples) < world_size:  # Lightning needs a batch on each
            raise ValueError(
                f"{len(examples)} examples in the {name} split are too few for {world_size} processes"
            )
        order = SequentialOrder(len(examples), self.eval_batch_size, *(position or self._position()))
        return Loader(examples, order, self.num_workers)

    def val_dataloader(self) -> Loader:
        """Every example of the validation split once."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> Loader:
        """Every example of the test split once."""
        return self.eval_dataloader("test")

    def take(self, name: SplitName, n: int) -> Batch:
        """Up to ``n`` evenly spaced examples of a split, as float32 values, without augmentation."""
        examples = self.split(name)
        places = torch.linspace(0, len(examples) - 1, min(n, len(examples)), dtype=torch.float64)
        index = places.round().long()
        return self.on_after_batch_transfer(examples.fetch(index, 0))

    def training_conds(self, n: int) -> Cond:
        """Conditions for ``n`` samples, as those of the training split; condition i is the same for every n.

        Class labels have the proportions of the split. A mapping has the conditions of its examples in a
        random order, repeated after the last one.
        """
        examples = self.split("train")
        if examples.label is not None:
            return proportional_labels(examples.label.bincount(minlength=self.spec.num_classes or 0), n)
        order = torch.randperm(len(examples), generator=generator("conditions", len(examples)))
        rows = order[torch.arange(n) % len(order)]
        return concatenate([self._conds(examples, part) for part in rows.split(BLOCK)])

    def _conds(self, examples: Examples, rows: Tensor) -> Mapping[str, Tensor]:
        """The mapping of conditions of some examples, (B, ...) each."""
        cond = self.spec.to_cond(examples.fetch(rows, 0).cond)
        assert isinstance(cond, Mapping), "spec.cond describes a mapping"
        return cond

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels: those of ``spec``, or of ``map_classes``."""
        return self._class_names or self.spec.class_names

    def map_classes(self, names: Sequence[str]) -> None:
        """Renumber the labels, so that label i is the class ``names[i]`` of a trained model.

        Args:
            names: all classes of the model. The data may have fewer.

        Raises:
            ValueError: if the data has a class that is not in ``names``.
        """
        own = self.spec.class_names or ()
        unknown = [name for name in own if name not in names]
        if unknown or not own:
            raise ValueError(
                f"the model has the classes {format_names(names)}, and {type(self).__name__} has the classes "
                f"{format_names(own)}: labels are matched by class name, so use the names of training"
            )
        self._class_names = tuple(names)
        self._splits.clear()
        self._fingerprints.clear()

    def fingerprint(self, name: SplitName) -> str:
        """Digest of all examples of a split, their order and their class names; cached.

        It does not depend on the order of the classes.
        """
        if name not in self._fingerprints:
            examples = self.split(name)
            digest = hashlib.blake2b(str(len(examples)).encode(), digest_size=16)
            for indices in torch.arange(len(examples)).split(BLOCK):
                digest.update(examples.content(indices))
                if self.spec.cond is not None:
                    for key, value in sorted(self._conds(examples, indices).items()):
                        digest.update(key.encode() + value.contiguous().numpy().tobytes())
            if examples.label is not None:
                digest.update(_label_content(examples.label, self.class_names))
            self._fingerprints[name] = digest.hexdigest()
        return self._fingerprints[name]

    def record(self) -> DataRecord:
        """Description of the data for a checkpoint."""
        splits = get_args(SplitName)
        label, spec, root = self.split("train").label, self.spec, getattr(self, "root", None)
        return DataRecord(
            name=type(self).__name__,
            spec=replace(spec, class_names=self.class_names),
            num_examples={name: len(self.split(name)) for name in splits},
            class_counts=None
            if label is None
            else tuple(label.bincount(minlength=spec.num_classes or 0).tolist()),
            fingerprints={name: self.fingerprint(name) for name in splits},
            root=None if root is None else str(folder_of(root)),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Convert level indices to float32 values, on the device. Without a Trainer, call it explicitly."""
        return batch._replace(x0=self.spec.from_levels(batch.x0), cond=self.spec.to_cond(batch.cond))

    def _position(self) -> tuple[int, int]:
        """(rank, world size) of the Trainer; (0, 1) without one."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _batches_in_flight(self) -> int:
        """Batches that the Trainer has fetched but not completed: 1 if an exception interrupts a step."""
        if self.trainer is None:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.ready - progress.processed  # pyright: ignore[reportAttributeAccessIssue]


class Batches:
    """The batches of a split on a device, as values and not as level indices; iterated once per round.

    Args:
        data: the data set.
        split: its name.
        device: of the batches.
        position: (rank, number of processes): each process gets its part of every batch.
    """

    def __init__(
        self, data: DataModule, split: SplitName, device: torch.device, position: tuple[int, int]
    ) -> None:
        self.data = data
        self.device = device
        self.loader = data.eval_dataloader(split, position)  # one for all rounds: its workers live on

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield self.data.on_after_batch_transfer(batch.to(self.device))


def folder_of(root: str | Path) -> Path:
    """``data.root`` as an absolute path with ``~`` expanded. The folder may be missing.

    Raises:
        ValueError: for a file.
    """
    folder = Path(root).expanduser().absolute()
    if folder.is_file():
        raise ValueError(f"data.root={root} is a file: expected a folder")
    return folder


def _label_content(label: Tensor, names: Sequence[str] | None) -> bytes:
    """The class of each example, (N,), as bytes that do not depend on the numbers of the classes."""
    present, position = label.unique(return_inverse=True)
    words = [str(number) if names is None else names[int(number)] for number in present.tolist()]
    ordered = sorted(words)
    rank = torch.tensor([ordered.index(word) for word in words])
    return "\0".join(ordered).encode() + rank[position].numpy().tobytes()
