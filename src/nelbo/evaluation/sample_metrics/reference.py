"""Features of the data that samples are compared with: measured once, kept in a cache folder."""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nelbo import array_file
from nelbo.data.base import DataModule, SplitName
from nelbo.data.examples import RandomSubset
from nelbo.data.loader import Loader
from nelbo.data.order import SequentialOrder
from nelbo.data.spec import DataSpec
from nelbo.evaluation.sample_metrics.accumulator import FeatureAccumulator
from nelbo.evaluation.sample_metrics.features import Features
from nelbo.evaluation.sample_metrics.images import features_of

FOLDER = "NELBO_CACHE"


@dataclass(frozen=True)
class Reference:
    """Features of a split of the data.

    Attributes:
        accumulator: of the features.
        about: everything that they depend on: data, split, number of examples, features, ...
        pairwise: how many examples were to be kept for the metrics that go pair by pair.
        spec: of the data.
    """

    accumulator: FeatureAccumulator
    about: Mapping[str, str]
    pairwise: int
    spec: DataSpec


def make_reference(
    data: DataModule,
    split: SplitName,
    features: Features,
    num_examples: int | None = None,
    pairwise: int = 10_000,
    cache: str | None = None,
    device: torch.device | str = "cpu",
    position: tuple[int, int] = (0, 1),
    all_reduce_sum: Callable[[Tensor], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """Read the features of a split from the cache, or measure them and write them there. On all ranks.

    Args:
        data: set up; its split is read without augmentation.
        split: whose features are wanted.
        features: of each example.
        num_examples: how many, drawn without order from all of the split; None for all.
        pairwise: how many are kept as they are, for the metrics that go pair by pair; 0 for none.
        cache: folder; None for $NELBO_CACHE, or else ~/.cache/nelbo.
        device: where features are made and added up.
        position: (rank, number of processes), which share the examples out.
        all_reduce_sum: replaces sums by those of all processes together, in place.
        progress: is told after each batch how many of how many examples this process has seen.

    Raises:
        ValueError: for fewer than two examples.
    """
    available = len(data.split(split))
    size = available if num_examples is None else min(num_examples, available)
    if size < 2:
        raise ValueError(f"a reference of {size} examples has no spread: take at least 2")
    spec = data.spec
    about = {
        "data": type(data).__name__,
        "split": split,
        "shape": "x".join(map(str, spec.shape)),
        "levels": str(spec.levels or "continuous"),
        "examples": f"{size} of {available}",
        "content": data.fingerprint(split),
        "features": features.key,
        "pairwise": str(min(pairwise, size)),
    }
    path = _file(cache_folder(cache), about)
    accumulator = FeatureAccumulator(features.dims(spec), size, pairwise, device)
    # a process that found the file must not leave alone those that did not
    missing = torch.tensor([0.0 if _read(path, about, accumulator) else 1.0], device=device)
    all_reduce_sum(missing)
    if missing > 0:
        accumulator = FeatureAccumulator(accumulator.dims, size, pairwise, device)
        _measure(accumulator, data, split, features, position, progress)
        accumulator.all_reduce_sum(all_reduce_sum)
        if position[0] == 0:
            _write(path, about, accumulator)
    return Reference(accumulator, about, pairwise, spec)


def cache_folder(given: str | None) -> Path:
    """Where references are kept."""
    return Path(given or os.environ.get(FOLDER) or "~/.cache/nelbo").expanduser()


@torch.no_grad()
def _measure(
    accumulator: FeatureAccumulator,
    data: DataModule,
    split: SplitName,
    features: Features,
    position: tuple[int, int],
    progress: Callable[[int, int], None],
) -> None:
    examples = RandomSubset(data.split(split), accumulator.size)
    order = SequentialOrder(accumulator.size, data.eval_batch_size, *position)
    mine, done = sum(map(len, order.batches(0))), 0
    for batch in Loader(examples, order, data.num_workers):
        batch = data.on_after_batch_transfer(batch.to(accumulator.sums.device))
        accumulator.add(features_of(batch.x0, features, data.spec), batch.index)
        done += len(batch.x0)
        progress(done, mine)


def _file(folder: Path, about: Mapping[str, str]) -> Path:
    """Readable as far as it goes, with a digest of the rest."""
    digest = hashlib.blake2b(repr(sorted(about.items())).encode(), digest_size=6).hexdigest()
    size, kind = about["examples"].split()[0], about["features"].split()[0]
    words = (about["data"], about["split"], about["shape"], size, kind, digest)
    return folder / f"reference-{'-'.join(words)}.npz"


def _read(path: Path, about: Mapping[str, str], accumulator: FeatureAccumulator) -> bool:
    """Fill the accumulator from a file, if there is one that is whole and about the same."""
    if not path.is_file():
        return False
    try:
        arrays, kept_about = array_file.load(path)
        if kept_about != dict(about):
            return False
        accumulator.sums.copy_(arrays["sums"])
        accumulator.rows.copy_(arrays["rows"])
    except (ValueError, KeyError, RuntimeError) as error:
        warnings.warn(f"{path} cannot be used ({error}): it is made again", stacklevel=2)
        return False
    return True


def _write(path: Path, about: Mapping[str, str], accumulator: FeatureAccumulator) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array_file.save(path, {"sums": accumulator.sums, "rows": accumulator.rows}, about)
    except OSError as error:
        warnings.warn(f"{error}: the reference will be made again next time", stacklevel=2)
