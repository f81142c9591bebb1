"""Operations on conditions, of tensors and of mappings."""

import pytest
import torch

from nelbo.cond import concatenate, drop, map_cond, repeat, repeat_interleave, rows_of, to_device

LABELS = torch.tensor([4, 2, 7])
MAPPING = {"angle": torch.tensor([0.1, 0.2, 0.3]), "text": torch.arange(6).view(3, 2)}
KEEP = torch.tensor([True, False, True])


def plain(cond):
    return {name: value.tolist() for name, value in cond.items()} if isinstance(cond, dict) else cond.tolist()


@pytest.mark.parametrize(
    ("operation", "labels", "text"),
    [
        (lambda cond: rows_of(cond, [2, 0]), [7, 4], [[4, 5], [0, 1]]),
        (lambda cond: rows_of(cond, KEEP), [4, 7], [[0, 1], [4, 5]]),
        (lambda cond: repeat(cond, 2), [4, 2, 7] * 2, [[0, 1], [2, 3], [4, 5]] * 2),
        (
            lambda cond: repeat_interleave(cond, 2),
            [4, 4, 2, 2, 7, 7],
            [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]],
        ),
        (
            lambda cond: concatenate([cond, rows_of(cond, [1])]),
            [4, 2, 7, 2],
            [[0, 1], [2, 3], [4, 5], [2, 3]],
        ),
        (lambda cond: to_device(cond, "cpu"), [4, 2, 7], [[0, 1], [2, 3], [4, 5]]),
    ],
    ids=["rows", "mask", "repeat", "repeat_interleave", "concatenate", "to_device"],
)
def test_an_operation_is_that_of_each_tensor(operation, labels, text):
    assert plain(operation(LABELS)) == labels
    assert plain(operation(MAPPING))["text"] == text
    assert operation(MAPPING)["angle"].ndim == 1


def test_dropped_conditions_have_the_null_value():
    assert drop(LABELS, KEEP, 10).tolist() == [10, 2, 10]
    found = drop(MAPPING, KEEP, {"angle": -1.0, "text": 9.0})
    assert plain(found) == {
        "angle": [-1.0, pytest.approx(0.2), -1.0],
        "text": [[9, 9], [2, 3], [9, 9]],
    }
    assert not isinstance(found, torch.Tensor)
    assert found["text"].dtype == torch.int64
    assert MAPPING["angle"][0] == torch.tensor(0.1), "the given conditions are unchanged"


def test_no_condition_stays_none():
    assert map_cond(torch.neg, None) is None
    assert rows_of(None, [0]) is None
