import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data.image_file import decode
from nelbo.data.image_folder import ImageFolder


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def paths(data, name):
    return [path.relative_to(data.root).as_posix() for path in data.split(name).paths]


def test_a_flat_folder_is_split_by_name_and_stays_so(tmp_path):
    for i in range(200):
        save(tmp_path / f"{i}.png", i)
    data = ImageFolder(root=tmp_path, size=8, in_memory=False)
    before = {name: paths(data, name) for name in ("train", "val", "test")}
    assert data.spec.num_classes is None
    assert data.spec.shape == (3, 8, 8)
    everything = [path for split in before.values() for path in split]
    assert sorted(everything) == sorted(f"{i}.png" for i in range(200))
    assert all(2 <= len(before[name]) <= 25 for name in ("val", "test"))
    for i in range(200, 220):
        save(tmp_path / f"{i}.png", i)
    data = ImageFolder(root=tmp_path, size=8, in_memory=False)
    assert all(set(before[name]) <= set(paths(data, name)) for name in before)


def test_folders_of_splits_and_classes(tmp_path):
    for i in range(100):
        save(tmp_path / "train" / ("cat" if i % 2 else "dog") / f"{i}.jpg", i)
    for i in range(3):
        save(tmp_path / "test" / "eel" / f"{i}.JPEG", i)
    data = ImageFolder(root=tmp_path, size=8, channels=1, in_memory=False)
    assert data.classes == ["cat", "dog", "eel"]
    assert data.spec.num_classes == 3
    assert len(paths(data, "train")) + len(paths(data, "val")) == 100
    assert all(path.startswith("test/eel/") for path in paths(data, "test"))
    for name in ("train", "val", "test"):
        split = data.split(name)
        expected = [data.classes.index(path.parent.name) for path in split.paths]
        assert split.label.tolist() == expected
    # a prefix of a split is fair to the classes
    assert data.split("train").label[:20].unique().tolist() == [0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_in_memory_or_not_is_the_same(tmp_path, channels):
    for i in range(60):
        save(tmp_path / "train" / f"{i}.png", 4 * i)
        save(tmp_path / "val" / f"{i}.png", i)
        save(tmp_path / "test" / f"{i}.png", i)
    options = {"root": tmp_path, "size": 4, "channels": channels, "batch_size": 8, "seed": 1}
    files = ImageFolder(in_memory=False, num_workers=2, **options)
    memory = ImageFolder(in_memory=True, **options)
    for a, b in zip(files.train_dataloader(), memory.train_dataloader(), strict=True):
        assert a.x0.shape == (8, channels, 4, 4)
        assert a.x0.dtype == torch.uint8
        assert torch.equal(a.x0, b.x0)
        assert torch.equal(a.index, b.index)


def test_an_image_of_the_right_size_is_left_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert torch.equal(decode(tmp_path / "a.png", 16, 3), torch.tensor(pixels).permute(2, 0, 1))


def test_other_images_are_cropped_to_the_centre_and_resized(tmp_path):
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 200  # the centred square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 5, 3) == 200).all()


def test_a_broken_image_is_named_before_training(tmp_path):
    for name in ("train", "val", "test"):
        save(tmp_path / name / "good.png")
    (tmp_path / "train" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cannot read the image .*bad\.png") as caught:
        ImageFolder(root=tmp_path, in_memory=True).setup("fit")
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_named(tmp_path):
    save(tmp_path / "a.jpg", size=(64, 64))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2 + 200])
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.jpg"):
        decode(tmp_path / "a.jpg", 8, 3)


def test_a_missing_folder_says_what_to_set(tmp_path):
    data = ImageFolder(root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no images in .*nowhere: set data\.root"):
        data.setup("fit")


def test_too_few_images_for_a_split_say_so(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"none of the 1 images in .* fell to the (val|train) split"):
        ImageFolder(root=tmp_path).setup("fit")


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match=r"1 \(grey\) or 3 \(RGB\), got 4"):
        ImageFolder(channels=4)
