"""A measurement is read from its file where the file fits, and made again where it does not."""

import json

import numpy as np
import pytest
import torch

from nelbo import array_file
from nelbo.runs.measurement_cache import cached

METADATA = {"weights": "a"}


def measured(path, metadata, value, at_least=None):
    """The value that is used, with ``value`` as the one of a new measurement."""
    return cached(path, metadata, lambda: {"x": torch.tensor(value)}, at_least or {})["x"].item()


def test_measurement_is_made_once_for_what_it_depends_on(tmp_path):
    path = tmp_path / "x.npz"
    assert [measured(path, METADATA, value) for value in (1, 2)] == [1, 1]
    assert [measured(path, {"weights": "b"}, value) for value in (3, 4)] == [3, 3]


def test_measurement_on_more_examples_is_used_and_one_on_fewer_is_made_again(tmp_path):
    path = tmp_path / "x.npz"
    examples = [8, 32, 8, 33]
    values = [measured(path, METADATA, n, {"examples": n}) for n in examples]
    assert values == [8, 32, 32, 33]
    assert array_file.load(path)[1] == {"weights": "a", "examples": "33"}


@pytest.mark.parametrize("text", ['{"weights": "a", "examples": "many"}', '{"weights": "a"}', "[1]", "null"])
def test_file_without_the_number_is_measured_again(tmp_path, text, recwarn):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array(1), metadata=np.array(text))
    assert measured(path, METADATA, 2, {"examples": 1}) == 2
    with np.load(path) as file:
        assert json.loads(str(file["metadata"])) == {"weights": "a", "examples": "1"}
