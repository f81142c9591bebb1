import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data.image_file import check, decode
from nelbo.data.image_folder import ImageFolder


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def paths(data, name):
    return [path.relative_to(data.root).as_posix() for path in data.split(name).paths]


def test_a_flat_folder_is_split_by_name_independent_of_other_images(tmp_path):
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
    # a prefix of a split has all classes
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


def test_an_image_of_the_right_size_is_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert torch.equal(decode(tmp_path / "a.png", 16, 3), torch.tensor(pixels).permute(2, 0, 1))


def test_other_images_are_cropped_to_the_centre_and_resized(tmp_path):
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 200  # the centred square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 5, 3) == 200).all()


@pytest.mark.parametrize("in_memory", [True, False])
def test_size_of_height_and_width_crops_to_these_proportions(in_memory, tmp_path):
    pixels = np.zeros((30, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 200  # the centre, 30 x 20
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels).save(tmp_path / split / "a.png")
    data = ImageFolder(root=tmp_path, size=[6, 4], in_memory=in_memory, eval_batch_size=1)
    assert data.spec.shape == (3, 6, 4)
    (batch,) = data.val_dataloader()
    assert batch.x0.shape == (1, 3, 6, 4)
    assert (batch.x0 == 200).all()


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


def test_a_missing_folder_is_named(tmp_path):
    data = ImageFolder(root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere: there is no such folder"):
        data.setup("fit")


def test_too_few_images_for_a_split_raise(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"none of the 1 images in .* is in the (val|train) split"):
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


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_corrupt_image_is_replaced_by_the_next_and_the_rest_is_unchanged(
    partly_broken, tmp_path, num_workers
):
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
        for image, label in zip(batch.x0[changed], batch.cond[changed], strict=True):
            assert (image == int(following.stem)).all()
            assert data.classes[label] == following.parent.name
    assert loader.take_unreadable() == [str(broken)]
    assert loader.take_unreadable() == []


def test_a_replaced_image_of_a_subset_is_named(partly_broken, tmp_path):
    data = ImageFolder(in_memory=False, on_corrupt="skip", **options(tmp_path))
    data.setup()
    data.subset("train", 32)
    subset = data.split("train")
    broken = Path(subset.name(7))
    partly_broken(broken.relative_to(tmp_path))
    loader = data.train_dataloader()
    indices = torch.cat([batch.index for batch in loader])
    assert sorted(indices.tolist()) == [-1, *(i for i in range(32) if i != 7)]
    assert loader.take_unreadable() == [str(broken)]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_image_that_setup_cannot_read_is_removed_and_not_counted(
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


def test_held_out_images_are_not_replaced(partly_broken, tmp_path):
    data = ImageFolder(in_memory=False, on_corrupt="skip", **options(tmp_path))
    data.setup()
    partly_broken("val/dog/4.png")
    with pytest.raises(ValueError, match=r"cannot read the image .*4\.png"):
        list(data.val_dataloader())


def test_a_removed_disk_raises_instead_of_replacing_images(partly_broken, tmp_path):
    data = ImageFolder(in_memory=False, on_corrupt="skip", **options(tmp_path))
    data.setup()
    for path in (tmp_path / "train").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"40 images in a row cannot be read; the last one: .*\.png"):
        next(iter(data.train_dataloader()))


def test_a_split_without_readable_images_raises(tmp_path):
    for name in ("train", "val", "test"):
        save(tmp_path / name / "a.png")
    (tmp_path / "val/a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"none of the 1 images of the val split can be read, such as "):
        ImageFolder(on_corrupt="skip", **options(tmp_path)).setup()


def test_an_unknown_on_corrupt_raises():
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


def folders(root, *names, count=30):
    for name in names:
        for i in range(count):
            save(root / name / f"{i}.png", i)


def sizes(data):
    return {name: len(data.split(name)) for name in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("train", "validation", "testing"),
        ("Train", "Val", "Test"),
        ("training", "VALID", "TESTING"),
    ],
)
def test_folders_of_splits_have_their_usual_names(train, val, test, tmp_path):
    for name, count in ((train, 6), (val, 3), (test, 2)):
        folders(tmp_path, f"{name}/cat", f"{name}/dog", count=count)
    data = ImageFolder(root=tmp_path, size=8)
    assert data.classes == ["cat", "dog"]
    assert sizes(data) == {"train": 12, "val": 6, "test": 4}


def test_held_out_images_are_taken_from_train_alone(tmp_path):
    folders(tmp_path, "train/cat", "train/dog")
    data = ImageFolder(root=tmp_path, size=8)
    assert data.classes == ["cat", "dog"]
    assert sum(sizes(data).values()) == 60
    assert min(sizes(data).values()) > 0


def test_a_test_folder_next_to_classes_is_held_out(tmp_path):
    folders(tmp_path, "cat", "dog", "test/cat", "test/dog")
    data = ImageFolder(root=tmp_path, size=8)
    assert data.classes == ["cat", "dog"]
    assert sizes(data)["test"] == 60
    assert sizes(data)["train"] + sizes(data)["val"] == 60


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/a", "val/a", "valid/a"), "has two folders for the val split, val and valid"),
        (("train", "bird", "boat"), "has train/ and 2 images outside of it"),
        (("cat/train", "cat/test", "dog/train"), r"has the split (train|test) inside (cat|dog)"),
    ],
)
def test_a_layout_with_two_meanings_is_refused(names, expected, tmp_path):
    folders(tmp_path, *names, count=1)
    with pytest.raises(ValueError, match=expected):
        ImageFolder(root=tmp_path, size=8).setup()


def test_files_of_operating_systems_are_ignored(tmp_path):
    folders(tmp_path, "cat", "dog", "__MACOSX/cat", ".ipynb_checkpoints", "@eaDir")
    (tmp_path / "cat/._1.png").write_bytes(b"not an image")
    data = ImageFolder(root=tmp_path, size=8)
    assert data.classes == ["cat", "dog"]
    assert sum(sizes(data).values()) == 60


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    folders(tmp_path / "data", "cat")
    folders(tmp_path / "elsewhere", "dog")
    (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere/dog")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data")
    data = ImageFolder(root=tmp_path / "data", size=8)
    assert data.classes == ["cat", "dog"]
    assert sum(sizes(data).values()) == 60


def test_the_home_folder_is_expanded_and_a_file_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folders(tmp_path, "images/cat")
    assert ImageFolder(root="~/images").root == tmp_path / "images"
    with pytest.raises(ValueError, match=r"data\.root=.*0\.png is a file: expected a folder"):
        ImageFolder(root=tmp_path / "images/cat/0.png")


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".jp2"])
def test_every_format_that_pillow_decodes_is_read(suffix, tmp_path):
    folders(tmp_path, "train", "val", "test", count=1)
    Image.new("RGB", (8, 8), (250, 250, 250)).save(tmp_path / f"train/a{suffix}")
    data = ImageFolder(root=tmp_path, size=8)
    assert sizes(data)["train"] == 2
    assert data.split("train").x.amax() >= 248


def test_images_that_cannot_be_decoded_are_counted(tmp_path):
    folders(tmp_path, "train", "val", "test", count=1)
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt"):
        (tmp_path / "train" / name).touch()
    with pytest.warns(UserWarning, match=r"3 images of .* are ignored: 2 \.heic, 1 \.svg"):
        ImageFolder(root=tmp_path, size=8).setup()


def pgm(path, values, largest):
    header = f"P5\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    path.write_bytes(header + values.astype(">u2").tobytes())


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_pgm_of_more_than_eight_bits_is_scaled(bits, tmp_path):
    largest = 2**bits - 1
    ramp = np.linspace(0, largest, 64).round().reshape(8, 8)
    pgm(tmp_path / "a.pgm", ramp, largest)
    expected = torch.from_numpy(255 * ramp / largest)
    assert (decode(tmp_path / "a.pgm", 8, 1)[0] - expected).abs().max() <= 0.51


def test_twelve_bits_in_sixteen_are_scaled_where_declared_and_else_refused(tmp_path):
    ramp = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "plain.tiff")
    with pytest.raises(ValueError, match=r"plain\.tiff: it has 16 bits and no value above 4095"):
        decode(tmp_path / "plain.tiff", 8, 1)
    Image.fromarray(ramp).save(tmp_path / "declared.tiff", tiffinfo={281: 4095})
    expected = torch.from_numpy(255 * ramp.astype(float) / 4095)
    assert (decode(tmp_path / "declared.tiff", 8, 1)[0] - expected).abs().max() <= 0.51


def test_names_that_are_not_utf8_are_read_and_escaped(tmp_path):
    folders(tmp_path, "train", "val", "test", count=1)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/train/\xff.png")
    Path(odd).write_bytes((tmp_path / "train/0.png").read_bytes())
    assert sizes(ImageFolder(root=tmp_path, size=8))["train"] == 2
    Path(odd).write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cannot read the image .*\\xff\.png") as caught:
        ImageFolder(root=tmp_path, size=8).setup()
    str(caught.value).encode("ascii")
    (tmp_path / "train").rename(tmp_path / "other")
    (tmp_path / "other").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe"))
    with pytest.raises(ValueError, match=r"the name of the class \\xfe is not UTF-8"):
        ImageFolder(root=tmp_path, size=8).setup()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_huge_image_is_refused_by_its_header(in_memory, tmp_path):
    size = 50_000
    chunks = (b"IHDR" + size.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0]), b"IDAT" + zlib.compress(bytes(99)))
    content = [(len(c) - 4).to_bytes(4) + c + zlib.crc32(c).to_bytes(4) for c in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))
    (tmp_path / "b.ppm").write_bytes(b"P6 50000 50000 255\n")
    for name in ("a.png", "b.ppm"):
        with pytest.raises(ValueError, match=rf"{name}: .*(2500000000 pixels|50000 x 50000 pixels)"):
            decode(tmp_path / name, 8, 3)
    root = tmp_path / "images"
    folders(root, "train", "val", "test", count=2)
    for split in ("train", "val", "test"):
        (root / split / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    options = {"root": root, "size": 8, "in_memory": in_memory}
    with pytest.raises(ValueError, match=r"a\.png: .*pixels"):
        ImageFolder(**options).setup()
    skipping = ImageFolder(**options, on_corrupt="skip")
    with pytest.warns(UserWarning, match=r"1 of the 3 images .* left out, such as .*a\.png"):
        skipping.setup()
    assert sizes(skipping) == {"train": 2, "val": 2, "test": 2}


def test_a_fifo_is_refused_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (lambda path: decode(path, 8, 3), check):
        with pytest.raises(ValueError, match=r"a\.png: it is not a regular file"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_fingerprint_depends_on_every_image(in_memory, tmp_path):
    folders(tmp_path, "train/cat", "val/cat", "test/cat")
    options = {"root": tmp_path, "size": 8, "in_memory": in_memory}
    before = ImageFolder(**options).record()
    assert ImageFolder(**{**options, "in_memory": not in_memory}).record() == before
    path = tmp_path / "train/cat/17.png"
    status = path.stat()
    save(path, 200)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = ImageFolder(**options).record()
    assert before.differences(after) == ["the train split has other content"]
