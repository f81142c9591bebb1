"""A random subset of a split: reproducible, from the whole split, with its own indices."""

import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.data.examples import Flipped, RandomSubset, TensorExamples


def test_a_subset_is_drawn_from_the_whole_split_and_renumbered():
    whole, data = Digits().split("test"), Digits()
    data.subset("test", 50)
    subset = data.split("test")
    assert len(subset) == 50
    batch = subset.fetch(torch.arange(50), 0)
    assert torch.equal(batch.index, torch.arange(50))
    chosen = subset.chosen
    assert len(chosen.unique()) == 50
    assert chosen.max() > len(whole) // 2  # not the first of a listing
    assert torch.equal(batch.x0, whole.fetch(chosen, 0).x0)
    again = Digits()
    again.subset("test", 50)
    assert torch.equal(again.split("test").chosen, chosen)


def test_classes_are_available_without_reading_the_split():
    label = torch.arange(50) % 7
    labelled = TensorExamples(torch.arange(50).view(50, 1, 1, 1), label)
    for examples in (RandomSubset(labelled, 20), Flipped(labelled, seed=0)):
        assert torch.equal(examples.label, examples.fetch(torch.arange(len(examples)), 0).cond)
    assert RandomSubset(TensorExamples(torch.zeros(5, 1, 1, 1)), 3).label is None


def test_a_subset_larger_than_the_split_is_the_whole_split():
    data = Digits()
    n = len(data.split("test"))
    data.subset("test", 10**6)
    assert torch.equal(data.split("test").chosen, torch.arange(n))


def test_a_subset_of_no_examples_raises():
    with pytest.raises(ValueError, match="max_examples=0 must be at least 1"):
        Digits().subset("test", 0)


@pytest.mark.parametrize("most", [7, 10**6])
def test_take_returns_evenly_spaced_examples_as_values(most):
    batch = Digits().take("val", most)
    assert len(batch.x0) == min(most, 180)
    assert (batch.index[0], batch.index[-1]) == (0, 179)
    assert batch.x0.dtype == torch.float32
    assert batch.x0.min() == -1.0
