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


@pytest.fixture
def partly_broken(tmp_path):
    """Splits of 40, 8 and 8 images in two classes; image i has the value i. Breaks one of them."""
    for name, count in (("train", 40), ("val", 8), ("test", 8)):
        for i in range(count):
            save(tmp_path / name / ("cat" if i % 2 else "dog") / f"{i}.png", i)

    def break_pixels(name):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-30])  # the header is whole
        return path

    return break_pixels


def options(tmp_path, **others):
    return {"root": tmp_path, "size": 8, "batch_size": 8, "seed": 3, "flip": False, **others}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_breaks_in_the_middle_of_an_epoch_is_named(partly_broken, tmp_path, num_workers):
    data = ImageFolder(in_memory=False, num_workers=num_workers, **options(tmp_path))
    data.setup()
    broken = partly_broken("train/cat/5.png")
    with pytest.raises(ValueError, match=r"^cannot read the image ") as caught:
        list(data.train_dataloader())
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_image_stands_in_for_it_and_everything_else_stays(partly_broken, tmp_path, num_workers):
    whole = list(ImageFolder(in_memory=False, **options(tmp_path)).train_dataloader())
    data = ImageFolder(in_memory=False, on_corrupt="skip", num_workers=num_workers, **options(tmp_path))
    data.setup()
    files = data.split("train")
    broken, following = (files.paths[i] for i in (39, 0))  # the next one begins again
    partly_broken(broken.relative_to(tmp_path))
    loader = data.train_dataloader()
    for expected, batch in zip(whole, loader, strict=True):
        changed = expected.index != batch.index
        assert batch.x0.shape == expected.x0.shape
        assert torch.equal(batch.x0[~changed], expected.x0[~changed])
        assert expected.index[changed].tolist() in ([], [39])
        for image, label in zip(batch.x0[changed], batch.label[changed], strict=True):
            assert (image == int(following.stem)).all()
            assert data.classes[label] == following.parent.name
    assert loader.take_unreadable() == [str(broken)]
    assert loader.take_unreadable() == []


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_is_broken_from_the_beginning_is_left_out_and_counted_nowhere(
    partly_broken, tmp_path, in_memory, split
):
    broken = partly_broken(f"{split}/dog/4.png")
    if split == "train":
        broken.write_bytes(b"not an image")  # of the training images, only headers are read beforehand
    data = ImageFolder(in_memory=in_memory, on_corrupt="skip", **options(tmp_path))
    with pytest.warns(
        UserWarning, match=rf"1 of the \d+ images of the {split} split cannot be read .*4\.png"
    ):
        data.setup()
    assert data.left_out[split] == [str(broken)]
    assert len(data.split(split)) == {"train": 39, "val": 7, "test": 7}[split]
    batches = list(data.eval_dataloader(split))
    values = torch.cat([batch.x0[:, 0, 0, 0] for batch in batches]).tolist()
    assert sorted(values) == [i for i in range(len(values) + 1) if i != 4]
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(len(values)))


def test_nothing_stands_in_for_a_held_out_image(partly_broken, tmp_path):
    data = ImageFolder(in_memory=False, on_corrupt="skip", **options(tmp_path))
    data.setup()
    partly_broken("val/dog/4.png")
    with pytest.raises(ValueError, match=r"cannot read the image .*4\.png"):
        list(data.val_dataloader())


def test_a_disk_that_went_away_is_not_passed_over(partly_broken, tmp_path):
    data = ImageFolder(in_memory=False, on_corrupt="skip", **options(tmp_path))
    data.setup()
    for path in (tmp_path / "train").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"40 images in a row cannot be read; the last one: .*\.png"):
        next(iter(data.train_dataloader()))


def test_a_split_of_broken_images_says_so(tmp_path):
    for name in ("train", "val", "test"):
        save(tmp_path / name / "a.png")
    (tmp_path / "val/a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"none of the 1 images of the val split can be read, such as "):
        ImageFolder(on_corrupt="skip", **options(tmp_path)).setup()


def test_another_word_for_on_corrupt_is_refused():
    with pytest.raises(ValueError, match=r"data\.on_corrupt=ignore: expected stop or skip"):
        ImageFolder(on_corrupt="ignore")


def test_sixteen_bits_are_scaled_and_thirty_two_are_refused(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    for channels in (1, 3):
        read = decode(tmp_path / "ramp.png", 8, channels)
        assert torch.equal(read.double(), torch.from_numpy((ramp / 257).round()).expand(channels, -1, -1))
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match=r"deep\.tiff: it has pixels of 32 bits"):
        decode(tmp_path / "deep.tiff", 8, 1)
