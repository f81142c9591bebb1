"""data=hf_dataset: columns of parquet and arrow files, streamed or not; what cannot be read is refused."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data.hf_dataset import HFDataset

datasets = pytest.importorskip("datasets")
N = 60


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(pixels: np.ndarray) -> dict:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 6, 8), dtype=np.uint8)
SERIES = RNG.normal(size=(N, 2, 16)).astype(np.float32)
FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog", "eel"]),
    "number": datasets.Value("int32"),
    "name": datasets.Value("string"),
    "series": datasets.Array2D((2, 16), "float32"),
    "bytes": datasets.List(datasets.List(datasets.Value("uint8"))),
    "ragged": datasets.List(datasets.Value("float32")),
}


def table(begin: int = 0, end: int = N, **changes) -> "datasets.Dataset":
    rows = range(begin, end)
    columns = {
        "image": [png(PIXELS[i]) for i in rows],
        "label": [i % 3 for i in rows],
        "number": [i % 4 for i in rows],
        "name": [f"row {i}" for i in rows],
        "series": [SERIES[i] for i in rows],
        "bytes": [PIXELS[i].tolist() for i in rows],
        "ragged": [[0.0] * (1 + (i == 7)) for i in rows],
    }
    return datasets.Dataset.from_dict(columns | changes, features=datasets.Features(FEATURES))


def write(folder, form: str, splits: dict) -> str:
    for name, rows in splits.items():
        if form == "parquet":
            rows.to_parquet(folder / f"{name}.parquet", batch_size=16)  # a row group for each 16 rows
        else:
            rows.save_to_disk(folder / name)
    return str(folder)


FORMS = pytest.mark.parametrize(
    ("form", "streaming"), [("parquet", False), ("parquet", True), ("arrow", False)], ids=str
)


@FORMS
def test_splits_are_those_of_the_files_and_their_values_are_exact(form, streaming, tmp_path):
    root = write(tmp_path, form, {"train-0": table(0, 40), "validation": table(40, 50), "test": table(50)})
    data = HFDataset(root, label="label", streaming=streaming)
    data.setup()
    assert (data.spec.shape, data.spec.levels) == ((1, 6, 8), 256)
    assert (data.spec.num_classes, data.spec.class_names) == (3, ("cat", "dog", "eel"))
    for name, begin, end in (("train", 0, 40), ("val", 40, 50), ("test", 50, N)):
        batch = data.split(name).fetch(torch.arange(end - begin), 0)
        np.testing.assert_array_equal(batch.x0[:, 0], PIXELS[begin:end])
        assert batch.cond.tolist() == [i % 3 for i in range(begin, end)]


@FORMS
@pytest.mark.parametrize(
    ("column", "shape", "levels", "values"),
    [("series", (2, 16), None, SERIES), ("bytes", (6, 8), 256, PIXELS)],
)
def test_arrays_are_read_exactly(column, shape, levels, values, form, streaming, tmp_path):
    root = write(tmp_path, form, {"data": table()})
    data = HFDataset(root, column=column, label="number", streaming=streaming)
    data.setup()
    assert (data.spec.shape, data.spec.levels, data.spec.num_classes) == (shape, levels, 4)
    read = [
        data.split(name).fetch(torch.arange(len(data.split(name))), 0).x0 for name in ("train", "val", "test")
    ]
    found = np.concatenate(read).reshape(N, -1)
    assert sorted(found.tolist()) == sorted(values.reshape(N, -1).tolist())


def test_an_empty_split_of_a_stream_counts_as_missing(tmp_path):
    root = write(tmp_path, "parquet", {"train": table(), "test": table(0, 0)})
    data = HFDataset(root, label="label", streaming=True)
    data.setup()
    assert len(data.split("test")) == N // 10


def test_missing_splits_are_held_out_of_training_as_of_other_data(tmp_path):
    data = HFDataset(write(tmp_path, "parquet", {"train": table()}), label="label")
    sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 48, "val": 6, "test": 6}
    assert torch.bincount(data.split("val").label).tolist() == [2, 2, 2]


def test_images_are_resized_to_any_proportions(tmp_path):
    root = write(tmp_path, "parquet", {"train": table(image=[png(PIXELS[i][: 6 - i % 2]) for i in range(N)])})
    data = HFDataset(root, size=[4, 8], channels=3)
    data.setup()
    assert data.spec.shape == (3, 4, 8)
    assert data.split("train").fetch(torch.arange(9), 0).x0.shape == (9, 3, 4, 8)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stream_is_resumed_at_its_exact_position_by_any_number_of_processes(
    world_size, tmp_path, monkeypatch
):
    root = write(tmp_path, "parquet", {"train": table()})

    def loaders():
        made = []
        for rank in range(world_size):
            data = HFDataset(root, column="series", streaming=True, buffer=20, batch_size=8)
            monkeypatch.setattr(data, "_position", lambda rank=rank: (rank, world_size))
            made.append(data.train_dataloader())
        return made

    def rest_of_epoch(made):
        return [torch.cat([part.x0 for part in parts]) for parts in zip(*made, strict=True)]

    whole = rest_of_epoch(loaders())
    single = HFDataset(root, column="series", streaming=True, buffer=20, batch_size=8).train_dataloader()
    for batch, expected in zip(single, whole, strict=True):
        assert torch.equal(batch.x0, expected)
    made = loaders()
    for loader in made:
        loader.load_state_dict({"epoch": 0, "batches": 2})
    for batch, expected in zip(rest_of_epoch(made), whole[2:], strict=True):
        assert torch.equal(batch, expected)


def test_a_stream_holds_few_row_groups(tmp_path):
    root = write(tmp_path, "parquet", {"train": table()})
    data = HFDataset(root, column="series", streaming=True, buffer=16, batch_size=4)
    rows = data.rows("train")
    for _ in data.train_dataloader():
        assert sum(map(len, rows._cache.values())) <= 16 + 2 * 16


def test_a_fingerprint_changes_with_the_data_and_not_with_its_folder(tmp_path):
    def fingerprints(folder, **changes):
        (tmp_path / folder).mkdir()
        root = write(tmp_path / folder, "parquet", {"train": table(**changes)})
        return [HFDataset(root, streaming=streaming).fingerprint("train") for streaming in (False, True)]

    first = fingerprints("a")
    assert fingerprints("b") == first
    other = fingerprints("c", image=[png(PIXELS[N - 1 - i]) for i in range(N)])
    assert all(before != after for before, after in zip(first, other, strict=True))


REFUSED = {
    "a column that is missing": ({"column": "img"}, {}, "no data.column=img: its columns are image, label"),
    "labels that are missing": (
        {"label": "class"},
        {},
        r"no data.label=class \(null for no labels\): its columns",
    ),
    "text for images": ({"column": "name"}, {}, "data.column=name is string: expected images or arrays"),
    "numbers for arrays": (
        {"column": "number"},
        {},
        "data.column=number is int32: expected images or arrays",
    ),
    "text for labels": ({"label": "name"}, {}, "data.label=name is string: labels must be integers"),
    "negative labels": ({"label": "number"}, {"number": [-1] * N}, "data.label=number has the label -1"),
    "missing labels": (
        {"label": "number"},
        {"number": [None] * N},
        "data.label=number has 60 missing values",
    ),
    "images of two sizes": (
        {},
        {"image": [png(PIXELS[i][: 6 - (i == 7)]) for i in range(N)]},
        "row 7 of train is an image of 5x8, the first one of 6x8: set data.size",
    ),
    "a damaged image": (
        {},
        {"image": [png(PIXELS[0])] + [{"bytes": b"x", "path": None}] * (N - 1)},
        "cannot read the image .*, row .* of train: unknown format",
    ),
    "an image by its path": (
        {},
        {"image": [png(PIXELS[0])] + [{"bytes": None, "path": "/etc/passwd"}] * (N - 1)},
        "row .* of train: it is missing, or stored as a path",
    ),
    "arrays of two shapes": (
        {"column": "ragged", "channel_axis": None},
        {},
        r"row 7 of train has an array of shape \(2,\) in data.column=ragged",
    ),
    "flipped series": ({"column": "series", "flip": True}, {}, "data.flip=true mirrors images"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(case, streaming, tmp_path):
    options, changes, message = REFUSED[case]
    data = HFDataset(write(tmp_path, "parquet", {"train": table(**changes)}), streaming=streaming, **options)
    with pytest.raises(ValueError, match=message) as error:  # noqa: PT012
        data.setup()
        examples = data.split("train")
        examples.fetch(torch.arange(len(examples)), 0)
        data.split("val").fetch(torch.arange(6), 0)
        data.split("test").fetch(torch.arange(6), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_files_that_are_missing_or_damaged_are_refused_in_one_line(streaming, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .parquet or .arrow files in .*: set data.root"):
        HFDataset(str(tmp_path), streaming=streaming).setup()
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"data.root=.* cannot be read: ") as error:
        HFDataset(str(tmp_path), streaming=streaming).setup()
    assert "\n" not in str(error.value)


def test_a_data_set_with_a_script_is_refused_and_the_script_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "some/set").mkdir(parents=True)
    (tmp_path / "some/set/set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"data.hub=some/set cannot be read: .*scripts are no longer"):
            HFDataset(hub="some/set", streaming=streaming).setup()
    assert not (tmp_path / "ran").exists()


def test_a_hub_id_is_read_as_a_folder_of_the_same_files(tmp_path, monkeypatch):
    """The library takes a folder for an id, so the code for the hub is run without a network."""
    (tmp_path / "some/set").mkdir(parents=True)
    root = write(tmp_path / "some/set", "parquet", {"train": table(0, 40), "test": table(40)})
    monkeypatch.chdir(tmp_path)
    for streaming in (False, True):
        hub = HFDataset(hub="some/set", label="label", streaming=streaming)
        folder = HFDataset(root, label="label", streaming=streaming)
        for name in ("train", "val", "test"):
            assert hub.fingerprint(name) == folder.fingerprint(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs data.root \(a folder\) or data.hub"),
        ({"root": "a", "hub": "a/b"}, "not both"),
        ({"hub": "../a"}, "data.hub=../a is no id"),
        ({"hub": "pandas"}, "data.hub=pandas is no id"),  # which reads pickles of the current folder
        ({"hub": "no/such"}, "data.hub=no/such.* cannot be read"),
    ],
)
def test_a_source_that_is_no_source_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        HFDataset(**options, download=False).setup()
    assert "\n" not in str(error.value)


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"^data=hf_dataset needs a library: pip install 'nelbo\[datasets\]'$"
    ):
        HFDataset(str(tmp_path)).setup()
