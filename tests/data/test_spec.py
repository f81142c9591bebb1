import pytest
import torch

from nelbo.data import DataSpec
from nelbo.data.cifar10 import CIFAR10
from nelbo.data.digits import Digits
from nelbo.data.fashion_mnist import FashionMNIST
from nelbo.data.mnist import MNIST
from nelbo.data.patches import Patches


def test_images_have_a_shape_and_a_bin():
    spec = DataSpec(shape=(3, 32, 32), levels=256, num_classes=10)
    assert spec.dims == 3072
    assert spec.is_image
    assert spec.half_bin == pytest.approx(1 / 255)


def test_continuous_vectors_have_no_bin_and_pass_through():
    spec = DataSpec(shape=(2,), levels=None, num_classes=None)
    x = torch.randn(5, 2)
    assert not spec.is_image
    assert spec.half_bin is None
    assert spec.from_levels(x) is x


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_become_the_grid(levels):
    spec = DataSpec(shape=(1, 8, 8), levels=levels, num_classes=None)
    x = spec.from_levels(torch.arange(levels, dtype=torch.uint8))
    exact = torch.linspace(-1, 1, levels, dtype=torch.float64)
    assert x.dtype == torch.float32
    assert (x[0], x[-1]) == (-1, 1)
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("names", [("cat",), ("cat", "cat"), ("cat", "dog", "eel")])
def test_class_names_that_do_not_match_the_number_of_classes_are_rejected(names):
    with pytest.raises(ValueError, match=r"spec\.class_names must be 2 different names"):
        DataSpec(shape=(1, 8, 8), levels=17, num_classes=2, class_names=names)


def test_data_sets_name_their_classes():
    assert Digits().spec.class_names == tuple("0123456789")
    assert MNIST().spec.class_names == tuple("0123456789")
    assert FashionMNIST().spec.class_names[9] == "Ankle boot"
    assert CIFAR10().spec.class_names[3] == "cat"
    assert Patches().spec.class_names is None


@pytest.mark.parametrize("levels", [-1, 0, 1, 65537])
def test_numbers_of_levels_that_cannot_be_stored_are_rejected(levels):
    with pytest.raises(ValueError, match=f"levels={levels} must be 2 to 65536"):
        DataSpec(shape=(1, 8, 8), levels=levels, num_classes=None)


@pytest.mark.parametrize(
    ("levels", "storage"), [(2, torch.uint8), (256, torch.uint8), (257, torch.uint16), (65536, torch.uint16)]
)
def test_every_level_is_restored_after_storing(levels, storage):
    spec = DataSpec(shape=(1,), levels=levels, num_classes=None)
    index = torch.arange(levels)
    stored = spec.to_levels(spec.from_levels(index))
    assert (stored.dtype, spec.range) == (storage, (-1.0, 1.0))
    assert torch.equal(stored.long(), index)
    outside = spec.to_levels(torch.tensor([-7.0, 7.0]))
    assert outside.tolist() == [0, levels - 1]


def test_continuous_data_has_no_range_and_is_stored_unchanged():
    spec = DataSpec(shape=(3, 2, 2), levels=None, num_classes=None)
    x = 100 * torch.randn(5, 3, 2, 2)
    assert (spec.range, spec.storage, spec.fits_png) == (None, torch.float32, False)
    assert torch.equal(spec.to_levels(x), x)


def test_series_are_drawn_as_lines_in_the_colours_of_their_channels():
    x = torch.stack([torch.linspace(-1, 1, 50), torch.zeros(50)]).expand(3, -1, -1)
    pixels = DataSpec((2, 50), 256, None).to_pixels(x)
    assert (pixels.shape, pixels.dtype) == ((3, 3, 64, 128), torch.uint8)
    rising = (pixels[0].permute(1, 2, 0) == torch.tensor([0x1F, 0x77, 0xB4])).all(-1).nonzero()
    assert (rising[:, 1].min(), rising[:, 1].max()) == (1, 126)
    assert (
        rising[rising[:, 1] == 1][:, 0].min() > rising[rising[:, 1] == 126][:, 0].max()
    )  # from below to above
    assert DataSpec((1, 4), None, None).to_pixels(torch.full((2, 1, 4), torch.nan)).shape == (2, 3, 64, 128)


def test_volumes_are_drawn_by_their_central_slice():
    x = 2 * torch.rand(3, 1, 5, 4, 6) - 1
    expected = DataSpec((1, 4, 6), 256, None).to_pixels(x[:, :, 2])
    assert torch.equal(DataSpec((1, 5, 4, 6), 256, None).to_pixels(x), expected)


@pytest.mark.parametrize(
    ("shape", "fits"), [((2,), None), ((1, 9), "lines"), ((1, 4, 4), "image"), ((1, 2, 4, 4), "slice")]
)
def test_a_renderer_has_to_fit_the_shape_and_none_draws_nothing(shape, fits):
    assert DataSpec(shape, 256, None).is_drawn == (fits is not None)
    assert not DataSpec(shape, 256, None, renderer="none").is_drawn
    for renderer in ("image", "lines", "slice"):
        if renderer == fits:
            assert DataSpec(shape, 256, None, renderer=renderer).is_drawn
        else:
            with pytest.raises(ValueError, match=f"renderer={renderer} does not fit .*: use "):
                DataSpec(shape, 256, None, renderer=renderer)
