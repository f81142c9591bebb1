import pickle

import numpy as np
import pytest
import torch
import torchvision

from nelbo.data.cifar10 import CIFAR10


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small CIFAR-10 in the official layout, with other checksums."""
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{j}" for j in range(1, 6)), "test_batch"]):
        x = np.full((20, 3072), i, dtype=np.uint8)
        x[:, :1024] = 100  # red comes first
        content = {"data": x, "labels": [j % 10 for j in range(20)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    return tmp_path


def test_official_files_are_read_and_split(root):
    data = CIFAR10(root=str(root))
    data.prepare_data()
    data.setup()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [90, 10, 20]
    assert data.split("val").label.sort().values.tolist() == list(range(10))
    x = data.split("test").x
    assert x.shape == (20, 3, 32, 32)
    assert (x[:, 0] == 100).all()
    assert (x[:, 1:] == 5).all()


def test_training_images_are_mirrored_and_evaluation_images_are_not(root):
    def images(loader):
        return torch.cat([batch.x0 for batch in loader])

    data = CIFAR10(root=str(root), batch_size=90)
    data.split("train").x[..., 0] = 255  # a bright left edge
    mirrored = images(data.train_dataloader())[:, 0, 0, -1] == 255
    assert 20 < mirrored.sum() < 70
    assert (images(data.eval_dataloader("train"))[:, 0, 0, 0] == 255).all()


def test_missing_data_raises_with_file_folder_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no CIFAR-10 in .*batches-py: set data.root "):
        CIFAR10(root=str(tmp_path), download=False).setup("fit")


def test_damaged_data_is_named(root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: False)
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged"):
        CIFAR10(root=str(root)).setup("fit")
