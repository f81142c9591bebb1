"""The size of images in lossless formats."""

import io

import pytest
import torch
from PIL import Image

from nelbo.data import DataSpec
from nelbo.evaluation import image_codecs
from nelbo.evaluation.image_codecs import CODECS, check_images, coded_sizes, file_size, make_mosaics


def images(n=10, channels=1, levels=256):
    return torch.randint(levels, (n, channels, 8, 9), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CODECS)
def test_format_is_lossless_and_sizes_are_those_of_whole_files(name, channels):
    if name == "jxl":
        pytest.importorskip("pillow_jxl")
    x = images(4, channels)
    found = coded_sizes(x, codecs=[name])[name]
    assert found.missing is None
    pictures = [image_codecs._to_image(image) for image in x]
    for picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, **CODECS[name].options)
        assert Image.open(stream).convert(picture.mode).tobytes() == picture.tobytes()
    size = sum(file_size(picture, CODECS[name]) for picture in pictures)
    assert found.single == pytest.approx(8 * size / x.numel())
    assert 8.0 <= found.mosaic < found.single  # noise has no redundancy, and the mosaic fewer headers


def test_fewer_levels_need_fewer_bits():
    few, many = coded_sizes(images(100, levels=4)), coded_sizes(images(100))
    for name, found in few.items():
        if found.missing is None:
            assert found.mosaic < 0.5 * many[name].mosaic


def test_format_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setitem(
        image_codecs.CODECS, "jxl", image_codecs.ImageCodec("JPEG XL", {}, "no_such_plugin", "some-package")
    )
    found = coded_sizes(images(), codecs=["png", "jxl"])
    assert found["jxl"].missing == "not measured: pip install some-package"
    assert found["jxl"].single is None
    assert found["png"].single is not None


@pytest.mark.parametrize(("n", "shape"), [(1, (8, 9)), (4, (16, 18)), (5, (16, 27)), (7, (24, 27))])
def test_mosaic_has_every_image_once(n, shape):
    x = images(n) + 1
    (mosaic,) = make_mosaics(x)
    assert mosaic.shape == (1, *shape)
    columns = shape[1] // 9
    for i, image in enumerate(x):
        row, column = divmod(i, columns)
        assert torch.equal(mosaic[:, 8 * row : 8 * row + 8, 9 * column : 9 * column + 9], image)
    assert int(mosaic.sum()) == int(x.sum())


def test_mosaic_larger_than_webp_allows_is_split(monkeypatch):
    monkeypatch.setattr(image_codecs, "MOST_PIXELS_PER_SIDE", 20)
    x = images(10)
    assert [tuple(mosaic.shape) for mosaic in make_mosaics(x)] == [(1, 16, 18), (1, 16, 18), (1, 8, 18)]


@pytest.mark.parametrize(
    "spec", [DataSpec((4,), 256, None), DataSpec((1, 8, 8), 1000, None), DataSpec((2,), None, None)]
)
def test_other_data_is_refused(spec):
    with pytest.raises(ValueError, match="baselines=true is for grey and RGB images"):
        check_images(spec)


def test_progress_counts_images_of_all_formats():
    seen = []
    coded_sizes(images(3), lambda done, total: seen.append((done, total)), codecs=["png", "webp"])
    assert seen == [(i, 6) for i in range(1, 7)]
