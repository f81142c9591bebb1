"""Splits that are the same for everyone: they depend on the data and on no seed of the user's."""

import torch
from torch import Tensor

from nelbo.randomness import generator


def deal(label: Tensor, hands: int) -> list[Tensor]:
    """Deal examples like cards, class by class, into ``hands`` parts.

    Parts are disjoint and cover everything; sizes, also within each class, differ by at most one.
    Each part comes in random order, so that its first examples are fair to all classes too.

    Args:
        label: ``(N,)`` class of each example.
        hands: number of parts.

    Returns:
        for each part, the indices of its examples, ``(about N / hands,)``.
    """
    shuffled = torch.randperm(len(label), generator=generator(0, 0, "split"))
    by_class = shuffled[label[shuffled].argsort(stable=True)]
    hand = torch.empty_like(label)
    hand[by_class] = torch.arange(len(label)) % hands
    return [shuffled[hand[shuffled] == i] for i in range(hands)]
