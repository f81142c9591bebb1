"""Measured arrays in a file: what was saved is loaded, and a broken file is named."""

import io
import zipfile

import numpy as np
import pytest
import torch

from nelbo import atomic_file
from nelbo.array_file import load, save
from nelbo.atomic_file import DamagedFileError

ARRAYS = {
    "table": torch.linspace(1.0, 9.0, 30).view(5, 6).masked_fill(torch.ones(5, 6).tril().bool(), torch.inf),
    "tiny": torch.logspace(-300, 1, 5, dtype=torch.float64),
    "steps": torch.arange(1, 6),
}


def test_what_was_saved_is_loaded(tmp_path):
    metadata = {"model": "a.ckpt", "examples": "16", "path": "ä/ö"}
    save(tmp_path / "a.npz", ARRAYS, metadata)
    loaded, said = load(tmp_path / "a.npz")
    assert said == metadata
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert torch.equal(loaded[name], array)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.npz"
    save(path, ARRAYS, {})
    save(path, {"steps": torch.zeros(2)}, {"again": "yes"})
    loaded, metadata = load(path)
    assert metadata == {"again": "yes"}
    assert loaded.keys() == {"steps"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*missing/a\.npz"):
        save(tmp_path / "missing/a.npz", ARRAYS, {})


def damaged_files(path):
    save(path, ARRAYS, {})
    whole = path.read_bytes()
    yield b""
    yield b"not a file of ours"
    for cut in (10, len(whole) // 2, len(whole) - 5):
        yield whole[:cut]
    np.savez(path, other=np.zeros(3))
    yield path.read_bytes()
    np.save(path.with_suffix(".npy"), np.zeros(3))
    yield path.with_suffix(".npy").read_bytes()
    np.savez(path, metadata=np.array({"code": 1}, dtype=object))  # a pickle is not loaded
    yield path.read_bytes()


def test_a_damaged_file_is_named_in_one_line(tmp_path):
    path = tmp_path / "a.npz"
    for content in damaged_files(path):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz is damaged") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "x.npz", {"x": torch.zeros(1_000_000)}, {})
    load(tmp_path / "x.npz")
    monkeypatch.setattr(atomic_file, "FREE_BYTES", 1000)
    with pytest.raises(DamagedFileError, match=r"x\.npz is damaged"):
        load(tmp_path / "x.npz")


def test_an_array_that_is_larger_than_all_memory_is_refused(tmp_path):
    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
    np.lib.format.write_array_header_1_0(header, shape)
    save(tmp_path / "a.npz", {}, {})
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(DamagedFileError, match=r"a\.npz is damaged"):
        load(tmp_path / "a.npz")
