"""Features of the data that samples are compared with, computed once and cached in a folder."""

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
from nelbo.progress import ReportProgress

FOLDER = "NELBO_CACHE"


@dataclass(frozen=True)
class Reference:
    """Features of a split of the data.

    Attributes:
        accumulator: of the features.
        metadata: everything that they depend on: data, split, number of examples, features, ...
        pairwise: number of examples requested for the metrics of pairs.
        spec: of the data.
    """

    accumulator: FeatureAccumulator
    metadata: Mapping[str, str]
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
    progress: ReportProgress = lambda done, total: None,
) -> Reference:
    """Read the features of a split from the cache, or compute and cache them. Call it on all ranks.

    Args:
        data: after setup; its split is read without augmentation.
        split: of the data.
        features: of each example.
        num_examples: size of a random subset of the split; None for all.
        pairwise: number of examples whose features are stored, for the metrics of pairs; 0 for none.
        cache: folder; None for $NELBO_CACHE, or else ~/.cache/nelbo.
        device: of the computation.
        position: (rank, number of ranks), which share the examples.
        all_reduce_sum: replaces a tensor by its sum over all ranks, in place.
        progress: called after each batch with the number of examples that this rank has completed and of all.

    Raises:
        ValueError: for fewer than two examples.
    """
    available = len(data.split(split))
    size = available if num_examples is None else min(num_examples, available)
    if size < 2:
        raise ValueError(f"a reference of {size} examples has no spread: take at least 2")
    spec = data.spec
    metadata = {
        "data": type(data).__name__,
        "split": split,
        "shape": "x".join(map(str, spec.shape)),
        "levels": str(spec.levels or "continuous"),
        "examples": f"{size} of {available}",
        "content": data.fingerprint(split),
        "features": features.key,
        "pairwise": str(min(pairwise, size)),
    }
    path = _file(cache_folder(cache), metadata)
    accumulator = FeatureAccumulator(features.dims(spec), size, pairwise, device)
    # all ranks compute if one of them cannot read the file
    missing = torch.tensor([0.0 if _read(path, metadata, accumulator) else 1.0], device=device)
    all_reduce_sum(missing)
    if missing > 0:
        accumulator = FeatureAccumulator(accumulator.dims, size, pairwise, device)
        _measure(accumulator, data, split, features, position, progress)
        accumulator.all_reduce_sum(all_reduce_sum)
        if position[0] == 0:
            _write(path, metadata, accumulator)
    return Reference(accumulator, metadata, pairwise, spec)


def cache_folder(given: str | None) -> Path:
    """The cache folder: ``given``, $NELBO_CACHE or ~/.cache/nelbo."""
    return Path(given or os.environ.get(FOLDER) or "~/.cache/nelbo").expanduser()


@torch.no_grad()
def _measure(
    accumulator: FeatureAccumulator,
    data: DataModule,
    split: SplitName,
    features: Features,
    position: tuple[int, int],
    progress: ReportProgress,
) -> None:
    examples = RandomSubset(data.split(split), accumulator.size)
    order = SequentialOrder(accumulator.size, data.eval_batch_size, *position)
    mine, done = sum(map(len, order.batches(0))), 0
    for batch in Loader(examples, order, data.num_workers):
        batch = data.on_after_batch_transfer(batch.to(accumulator.rows.device))
        accumulator.add(features_of(batch.x0, features, data.spec), batch.index)
        done += len(batch.x0)
        progress(done, mine)


def _file(folder: Path, metadata: Mapping[str, str]) -> Path:
    """A name with the main settings and a digest of all of them."""
    digest = hashlib.blake2b(repr(sorted(metadata.items())).encode(), digest_size=6).hexdigest()
    size, kind = metadata["examples"].split()[0], metadata["features"].split()[0]
    words = (metadata["data"], metadata["split"], metadata["shape"], size, kind, digest)
    return folder / f"reference-{'-'.join(words)}.npz"


def _read(path: Path, metadata: Mapping[str, str], accumulator: FeatureAccumulator) -> bool:
    """Load the accumulator from the file; False if it is missing, damaged or has other metadata."""
    if not path.is_file():
        return False
    try:
        arrays, stored_metadata = array_file.load(path)
        if stored_metadata != dict(metadata):
            return False
        F = accumulator.dims
        count, total, outer = arrays["sums"].split([1, F, F * F])
        accumulator.count.copy_(count[0])
        accumulator.total.copy_(total)
        accumulator.outer.copy_(outer.view(F, F))
        accumulator.rows.copy_(arrays["rows"])
    except (ValueError, KeyError, RuntimeError) as error:
        warnings.warn(f"{path} cannot be used ({error}): it is computed again", stacklevel=2)
        return False
    return True


def _write(path: Path, metadata: Mapping[str, str], accumulator: FeatureAccumulator) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sums = (accumulator.count[None], accumulator.total, accumulator.outer.flatten())
        array_file.save(path, {"sums": torch.cat(sums), "rows": accumulator.rows}, metadata)
    except OSError as error:
        warnings.warn(f"{error}: the reference is not cached", stacklevel=2)
