import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from nelbo import atomic_file
from nelbo.data import mnist
from nelbo.data.fashion_mnist import FashionMNIST
from nelbo.data.mnist import MNIST

NELBO_DATA = os.environ.get("NELBO_DATA")


def idx(values):
    """Bytes in the IDX format."""
    sizes = np.array(values.shape, dtype=">i4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


@pytest.fixture
def root(tmp_path):
    """A small MNIST whose images are constant: 12 of each class to train on, 20 to test."""
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for official, label in {"train": np.arange(120) % 10, "t10k": np.arange(20) % 10}.items():
        images = np.broadcast_to(np.arange(len(label))[:, None, None], (len(label), 28, 28))
        (folder / f"{official}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{official}-labels-idx1-ubyte").write_bytes(idx(label))
    return tmp_path


def test_packed_and_unpacked_files_are_read_and_split(root):
    data = MNIST(root=str(root))
    data.prepare_data()
    data.setup()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [110, 10, 20]
    assert data.split("val").label.sort().values.tolist() == list(range(10))
    held_in, held_out = (data.split(name).x[:, 0, 0, 0].tolist() for name in ("train", "val"))
    assert sorted(held_in + held_out) == list(range(120))
    for name in ("train", "val", "test"):
        split = data.split(name)
        assert torch.equal(split.x[:, 0, 0, 0] % 10, split.label)


def test_missing_files_raise_with_file_folder_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train-images.* in .*FashionMNIST.raw: set data"):
        FashionMNIST(root=str(tmp_path), download=False).setup("fit")


def test_a_damaged_file_is_named(root):
    path = root / "MNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is damaged \(.*\): delete"):
        MNIST(root=str(root)).setup("fit")


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    # mirrors with an invalid scheme fail at once, as without a network
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["nowhere://a/", "nowhere://b/"])
    with pytest.raises(OSError, match="cannot download MNIST into") as caught:
        MNIST(root=str(tmp_path)).prepare_data()
    assert "\n" not in str(caught.value)


def test_a_download_that_fails_without_a_message_is_named(tmp_path, monkeypatch):
    def timed_out(*args, **options):
        raise TimeoutError

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", timed_out)
    with pytest.raises(OSError, match=r"cannot download MNIST into .* \(TimeoutError\): set data\.root"):
        MNIST(root=str(tmp_path)).prepare_data()


@pytest.mark.skipif(
    not NELBO_DATA or not Path(NELBO_DATA, "MNIST").is_dir(),
    reason="NELBO_DATA names no folder with MNIST",
)
def test_the_real_files():
    data = MNIST(root=str(NELBO_DATA), download=False)
    data.setup()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    assert data.split("test").label[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.split("train").x.float().mean() / 255 == pytest.approx(0.1307, abs=1e-3)


def test_a_small_file_that_unpacks_to_much_more_is_refused(root, monkeypatch):
    monkeypatch.setattr(atomic_file, "FREE_BYTES", 1000)
    monkeypatch.setattr(mnist, "FREE_BYTES", 1000)
    file = root / "MNIST/raw/train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx(np.zeros((1000, 28, 28)))))
    with pytest.raises(ValueError, match="it would unpack from"):
        MNIST(root=str(root)).split("train")
