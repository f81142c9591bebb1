import pytest
import torch

from nelbo.data import DataSpec


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
