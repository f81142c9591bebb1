"""A measurement is read from its file where the file fits, and made again where it does not."""

import json

import numpy as np
import pytest
import torch

from nelbo import array_file
from nelbo.runs.measurement_cache import cached

ABOUT = {"weights": "a"}


def measured(path, about, value, at_least=None):
    """The value that is used, with ``value`` as the one of a new measurement."""
    return cached(path, about, lambda: {"x": torch.tensor(value)}, at_least or {})["x"].item()


def test_measurement_is_made_once_for_what_it_depends_on(tmp_path):
    path = tmp_path / "x.npz"
    assert [measured(path, ABOUT, value) for value in (1, 2)] == [1, 1]
    assert [measured(path, {"weights": "b"}, value) for value in (3, 4)] == [3, 3]


def test_measurement_on_more_examples_is_used_and_one_on_fewer_is_made_again(tmp_path):
    path = tmp_path / "x.npz"
    examples = [8, 32, 8, 33]
    values = [measured(path, ABOUT, n, {"examples": n}) for n in examples]
    assert values == [8, 32, 32, 33]
    assert array_file.load(path)[1] == {"weights": "a", "examples": "33"}


@pytest.mark.parametrize("about", ['{"weights": "a", "examples": "many"}', '{"weights": "a"}', "[1]", "null"])
def test_file_without_the_number_is_measured_again(tmp_path, about, recwarn):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array(1), about=np.array(about))
    assert measured(path, ABOUT, 2, {"examples": 1}) == 2
    with np.load(path) as file:
        assert json.loads(str(file["about"])) == {"weights": "a", "examples": "1"}
