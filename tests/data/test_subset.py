"""A random subset of a split: out of all of it, the same each time, counted by itself."""

import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.data.examples import Flipped, RandomSubset, TensorExamples


def test_it_is_drawn_from_all_of_the_split_and_numbered_anew():
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


def test_its_classes_are_known_without_reading_it():
    label = torch.arange(50) % 7
    labelled = TensorExamples(torch.arange(50).view(50, 1, 1, 1), label)
    for examples in (RandomSubset(labelled, 20), Flipped(labelled, seed=0)):
        assert torch.equal(examples.label, examples.fetch(torch.arange(len(examples)), 0).label)
    assert RandomSubset(TensorExamples(torch.zeros(5, 1, 1, 1)), 3).label is None


def test_more_than_there_are_are_all_of_them():
    data = Digits()
    n = len(data.split("test"))
    data.subset("test", 10**6)
    assert torch.equal(data.split("test").chosen, torch.arange(n))


def test_none_is_refused():
    with pytest.raises(ValueError, match="max_examples=0 must be at least 1"):
        Digits().subset("test", 0)


@pytest.mark.parametrize("most", [7, 10**6])
def test_some_of_a_split_come_evenly_out_of_it_and_in_values(most):
    batch = Digits().take("val", most)
    assert len(batch.x0) == min(most, 180)
    assert (batch.index[0], batch.index[-1]) == (0, 179)
    assert batch.x0.dtype == torch.float32
    assert batch.x0.min() == -1.0
