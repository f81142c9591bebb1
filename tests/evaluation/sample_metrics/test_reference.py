"""Features of the data are computed once, and again if the cached file cannot be used."""

import warnings

import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.evaluation.sample_metrics import make_reference
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.evaluation.sample_metrics.reference import cache_folder


class CountedPixels(Pixels):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __call__(self, x):
        self.seen += len(x)
        return super().__call__(x)


def made(folder, data=None, split="test", **options):
    """The reference, and the number of examples that were evaluated for it."""
    features = CountedPixels()
    reference = make_reference(data or Digits(), split, features, cache=str(folder), **options)
    return reference, features.seen - 1  # one to find out how many features there are


def assert_same(first, second) -> None:
    for name in ("count", "total", "outer", "rows"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_a_reference_is_computed_once(tmp_path):
    first, seen = made(tmp_path)
    again, seen_again = made(tmp_path)
    assert (seen, seen_again) == (180, 0)
    assert_same(first.accumulator, again.accumulator)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("reference-Digits-test-1x8x8-180-pixels-")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"split": "val"}, 180), ({"num_examples": 100}, 100), ({"pairwise": 50}, 180)],
    ids=["split", "size", "kept"],
)
def test_other_settings_have_another_reference(options, expected, tmp_path):
    made(tmp_path)
    assert made(tmp_path, **options)[1] == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_as_many_images_of_another_kind_are_not_the_same_data(tmp_path):
    made(tmp_path)
    other = Digits()
    other.split("test").x[:] = 0  # pyright: ignore
    assert made(tmp_path, other)[1] == 180


@pytest.mark.parametrize("spoil", ["cut", "other", "empty"])
def test_a_damaged_file_is_computed_again(spoil, tmp_path):
    whole, _ = made(tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "other": b"something else", "empty": b""}[spoil])
    with pytest.warns(UserWarning, match="it is computed again"):
        again, seen = made(tmp_path)
    assert seen == 180
    assert_same(whole.accumulator, again.accumulator)
    assert made(tmp_path)[1] == 0


def test_a_file_with_other_metadata_is_computed_again(tmp_path):
    made(tmp_path, split="val")
    (other,) = tmp_path.iterdir()
    made(tmp_path)
    (file,) = set(tmp_path.iterdir()) - {other}
    other.replace(file)
    assert made(tmp_path)[1] == 180


def test_a_reference_is_computed_without_a_writable_cache(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="the reference is not cached"):
        assert made(tmp_path / "file/folder")[1] == 180


def test_part_of_a_split_is_a_random_subset(tmp_path):
    reference, _ = made(tmp_path, split="train", num_examples=100)
    assert reference.metadata["examples"] == "100 of 1437"
    assert reference.accumulator.count == 100


def test_ranks_share_the_examples(tmp_path):
    whole, _ = made(tmp_path / "whole")
    parts = []
    for rank in (0, 1):
        part, seen = made(tmp_path / f"rank{rank}", position=(rank, 2))
        assert seen == 90
        parts.append(part.accumulator)
    for name in ("count", "total", "outer"):
        total = getattr(parts[0], name) + getattr(parts[1], name)
        torch.testing.assert_close(total, getattr(whole.accumulator, name), rtol=1e-13, atol=0.0)
    assert torch.equal(parts[0].rows + parts[1].rows, whole.accumulator.rows)


def test_all_ranks_compute_if_one_cannot_read_the_file(tmp_path):
    made(tmp_path)
    calls = []

    def add(sums):
        calls.append(sums.shape)
        if sums.shape == (1,):  # the other process has no file
            sums += 1

    assert made(tmp_path, position=(0, 2), all_reduce_sum=add)[1] == 90
    assert len(calls) == 5  # whether a file is missing, three sums, and the stored features


def test_cache_folder_is_given_or_from_the_environment(monkeypatch, tmp_path):
    assert cache_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder(None) == tmp_path / "elsewhere"
    monkeypatch.delenv("NELBO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache/nelbo"


def test_a_reference_of_one_example_raises(tmp_path):
    with warnings.catch_warnings(), pytest.raises(ValueError, match="has no spread"):
        made(tmp_path, num_examples=1)
