"""An image that breaks in the middle of training: named and stopped at, or replaced, counted and named."""

import csv

import pytest
from PIL import Image

from nelbo.data.image_folder import ImageFolder


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images, one of which breaks after the check before training."""
    folder = tmp_path / "images"
    for name, count in (("train", 40), ("val", 8), ("test", 8)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{i}.png")
    broken = folder / "train/7.png"
    setup = ImageFolder.setup

    def setup_then_break(data, stage=None):
        setup(data, stage)
        if stage is None:
            broken.write_bytes(b"not an image any more")

    monkeypatch.setattr(ImageFolder, "setup", setup_then_break)
    return folder


def options(images, tiny):
    return (
        "logger=none", "data=image_folder", f"data.root={images}", "data.in_memory=false", "data.size=8",
        *[option for option in tiny if "callbacks.samples" not in option], "callbacks.samples=null",
        "data.batch_size=8", "trainer.max_steps=10", "trainer.val_check_interval=5",
    )  # fmt: skip


def test_broken_image_is_named_and_progress_is_saved(images, command, tiny):
    ended = command(*options(images, tiny), "trainer.max_steps=100")
    assert ended.code == 1
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: cannot read the image {images}/train/7.png: ")


@pytest.mark.slow
def test_broken_image_is_replaced_counted_and_named(images, command, tiny):
    ended = command(*options(images, tiny), "data.on_corrupt=skip")
    assert ended.code == 0, ended.err
    with (ended.folder / "metrics.csv").open() as file:
        skipped = [float(row["data/skipped"]) for row in csv.DictReader(file) if row.get("data/skipped")]
    assert skipped == [1.0, 1.0]  # two epochs of 40 images in batches of 8
    assert ended.err.count("could not be read and were replaced by others") == 2
    assert (ended.folder / "unreadable.txt").read_text() == f"{images}/train/7.png\n"
