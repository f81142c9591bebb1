"""Splits that depend on the data only, not on the seed of a run."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nelbo.randomness import generator

SplitName = Literal["train", "val", "test"]

SPLIT_OF: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Splits by their name in lower case."""


def stratified_parts(label: Tensor, parts: int) -> list[Tensor]:
    """Split examples into ``parts`` parts, stratified by class.

    Parts are disjoint and complete. Their sizes, also within each class, differ by at most one. Each part is
    in random order, so that its first examples are a random sample of the classes.

    Args:
        label: ``(N,)`` class of each example.
        parts: their number.

    Returns:
        The indices of the examples of each part, ``(about N / parts,)``.
    """
    shuffled = torch.randperm(len(label), generator=generator(0, 0, "split"))
    by_class = shuffled[label[shuffled].argsort(stable=True)]
    part = torch.empty_like(label)
    part[by_class] = torch.arange(len(label)) % parts
    return [shuffled[part[shuffled] == i] for i in range(parts)]


def hold_out(label: Tensor | None, n: int, names: Sequence[str], parts: int) -> dict[str, Tensor]:
    """Split examples into the splits ``names``, each one of the :func:`stratified_parts`, and train.

    Args:
        label: ``(n,)`` class of each example; None for one class.
        n: number of examples.
        names: of the held-out splits.
        parts: their number; the training split is those that remain.

    Returns:
        The indices of the examples of ``train`` and of each of ``names``.

    Raises:
        ValueError: if a split would be empty.
    """
    found = stratified_parts(torch.zeros(n, dtype=torch.long) if label is None else label, parts)
    splits = {"train": torch.cat(found[len(names) :]), **dict(zip(names, found, strict=False))}
    if not all(map(len, splits.values())):
        raise ValueError(f"{n} examples are too few for data.parts={parts}: a split would be empty")
    return splits
