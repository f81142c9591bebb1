"""data=array: every dtype and layout is read exactly, in disjoint splits; what cannot be read is refused."""

import warnings

import numpy as np
import pytest
import torch

from nelbo.data.array import Array, open_array

N = 60
SHAPES = {"images": (3, 4, 6), "series": (2, 16), "volumes": (1, 3, 4, 4), "vectors": (5,)}
DTYPES = {"uint8": (256, "uint8"), "uint16": (65536, "uint16"), "bool": (2, "uint8"),
          "float64": (None, "float32"), ">f4": (None, "float32")}  # fmt: skip


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    x = np.random.default_rng(0).integers(0, 256, (N, *shape))
    return (x % 2).astype(dtype) if dtype == "bool" else x.astype(dtype)


def rows_of(data: Array) -> dict[str, torch.Tensor]:
    return {name: data.split(name).rows for name in ("train", "val", "test")}  # pyright: ignore


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SHAPES)
def test_examples_are_the_rows_of_the_array(kind, dtype, tmp_path):
    x = values(dtype, SHAPES[kind])
    np.save(tmp_path / "images.npy", x)
    data = Array(str(tmp_path))
    levels, stored = DTYPES[dtype]
    assert (data.spec.shape, data.spec.levels, data.spec.num_classes) == (SHAPES[kind], levels, None)
    data.setup()
    for name, rows in rows_of(data).items():
        batch = data.split(name).fetch(torch.arange(len(rows)), 0)
        assert batch.x0.numpy().dtype == stored
        np.testing.assert_array_equal(batch.x0.numpy(), x[rows].astype(stored))
        assert batch.cond is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_hold_the_same_data_as_npy_files(save, tmp_path):
    x, label = np.asfortranarray(values("uint8", (1, 4, 4))), np.arange(N) % 3
    np.save(tmp_path / "images.npy", x)
    np.save(tmp_path / "labels.npy", label)
    save(tmp_path / "data.npz", x=x, y=label)
    whole = Array(str(tmp_path), label="labels.npy")
    archive = Array(str(tmp_path), "data.npz/x", "data.npz/y")
    assert archive.spec == whole.spec
    assert whole.spec.num_classes == 3
    for name in ("train", "val", "test"):
        assert archive.fingerprint(name) == whole.fingerprint(name)


def test_large_files_are_mapped_and_not_read(tmp_path):
    x = values("uint8", (1, 4, 4))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    for name in ("x.npy", "x.npz/x"):
        assert isinstance(open_array(tmp_path, name, "data.x"), np.memmap)


def test_splits_are_stratified_disjoint_and_complete(tmp_path):
    label = np.repeat([0, 1, 2], N // 3).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=values("uint8", (1, 4, 4)), y=label)
    data = Array(str(tmp_path), "data.npz/x", "data.npz/y", parts=10)
    rows = rows_of(data)
    assert [len(rows[name]) for name in ("train", "val", "test")] == [48, 6, 6]
    assert torch.cat(list(rows.values())).sort().values.tolist() == list(range(N))
    for name in ("val", "test"):
        assert torch.bincount(data.split(name).label).tolist() == [2, 2, 2]


@pytest.mark.parametrize(("axis", "shape"), [(-1, (N, 4, 6, 3)), (None, (N, 4, 6))])
def test_the_axis_of_the_channels_can_be_the_last_or_missing(axis, shape, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "images.npy", x)
    data = Array(str(tmp_path), channel_axis=axis)
    assert data.spec.shape == ((3, 4, 6) if axis == -1 else (1, 4, 6))
    found = data.split("val").fetch(torch.tensor([0]), 0).x0[0]
    row = x[rows_of(data)["val"][0]]
    np.testing.assert_array_equal(found, np.moveaxis(row, -1, 0) if axis == -1 else row[None])


def test_channels_in_the_last_axis_are_read_as_the_first_with_a_warning(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((N, 12, 20, 3), np.uint8))
    with pytest.warns(UserWarning, match=r"20x3 with 12 channels; .* add data.channel_axis=-1"):
        assert Array(str(tmp_path)).spec.shape == (12, 20, 3)
    np.save(tmp_path / "images.npy", np.zeros((N, 3, 4, 4), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Array(str(tmp_path)).spec.shape == (3, 4, 4)


X = np.zeros((N, 1, 4, 4), np.uint8)
BAD = {
    "a missing file": ({}, {}, FileNotFoundError, r"data.x=images.npy: there is no file .*images.npy"),
    "one number": ({"images": X[0, 0, 0, 0]}, {}, ValueError, r"has the shape \(\): expected \(N, ...\)"),
    "no examples": ({"images": X[:0]}, {}, ValueError, r"has the shape \(0, 1, 4, 4\)"),
    "objects": ({"images": np.array([[None]] * N)}, {}, ValueError, "cannot be read: .*Python objects"),
    "text": (
        {"images": np.array([["a"]] * N)},
        {},
        ValueError,
        "has <U1 values: expected integers or floats",
    ),
    "int64": ({"images": X.astype(int)}, {}, ValueError, "int64 values: set data.levels"),
    "levels of floats": (
        {"images": X.astype(float)},
        {"levels": 9},
        ValueError,
        "data.levels=9 needs integers",
    ),
    "too few levels": (
        {"images": X + 16},
        {"levels": 16},
        ValueError,
        "values of 16 to 16; with 16 levels they must be 0 to 15",
    ),
    "not finite": ({"images": np.full(X.shape, np.nan)}, {}, ValueError, "has values that are not finite"),
    "few examples": ({"images": X[:2]}, {}, ValueError, "2 examples are too few for data.parts=10"),
    "float labels": (
        {"images": X, "y": np.zeros(N)},
        {"label": "y.npy"},
        ValueError,
        "float64 values: labels must be integers",
    ),
    "one-hot labels": (
        {"images": X, "y": np.zeros((N, 2), int)},
        {"label": "y.npy"},
        ValueError,
        r"shape \(60, 2\): expected \(60,\)",
    ),
    "negative labels": (
        {"images": X, "y": np.full(N, -1)},
        {"label": "y.npy"},
        ValueError,
        "the label -1: labels",
    ),
    "flipped series": ({"images": X[:, 0]}, {"flip": True}, ValueError, "data.flip=true mirrors images"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused_in_one_line(case, tmp_path):
    files, options, kind, message = BAD[case]
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(kind, match=message) as error:
        Array(str(tmp_path), **options).setup()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.npz/x"])
def test_a_damaged_file_is_refused_in_one_line(name, content, tmp_path):
    (tmp_path / name.removesuffix("/x")).write_bytes(content)
    with pytest.raises(ValueError, match=f"data.x={name} cannot be read") as error:
        Array(str(tmp_path), name).setup()
    assert "\n" not in str(error.value)


def test_a_compressed_array_that_unpacks_to_much_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((1500, 1, 256, 256), np.uint8), y=np.arange(3))
    with pytest.raises(ValueError, match=r"data.x=data.npz/x cannot be read: it would unpack from") as error:
        Array(str(tmp_path), "data.npz/x").setup()
    assert "np.savez" in str(error.value)
    assert open_array(tmp_path, "data.npz/y", "data.label").tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["data.npz", "data.npz/images"])
def test_an_array_that_the_file_does_not_have_is_refused_with_the_names(name, tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=X)
    with pytest.raises(ValueError, match=r"choose one of its arrays, such as data.x=data.npz/x: x, y"):
        Array(str(tmp_path), name).setup()
