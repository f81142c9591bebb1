"""Flipping mirrors the width of images, and raises for data of another shape."""

import pytest
import torch

from nelbo.data.base import DataModule
from nelbo.data.examples import Flipped, TensorExamples
from nelbo.data.spec import DataSpec

N = 40


class Shaped(DataModule):
    """Random data of any shape and number of levels."""

    def __init__(self, shape, levels=256, flip=True) -> None:
        super().__init__(batch_size=4, eval_batch_size=4)
        self._spec, self.flip = DataSpec(shape, levels, None), flip

    @property
    def spec(self) -> DataSpec:
        return self._spec

    def read_split(self, name) -> TensorExamples:
        g = torch.Generator().manual_seed(0)
        return TensorExamples(self.spec.to_levels(2 * torch.rand(N, *self.spec.shape, generator=g) - 1))


@pytest.mark.parametrize("levels", [256, 65536, None])
@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 4, 6), (5, 4, 6), (4, 1, 64), (4, 4, 4)])
def test_an_image_is_unchanged_or_mirrored_along_its_width(shape, levels):
    whole = Shaped(shape, levels).split("train").fetch(torch.arange(N), 0).x0
    flipped = Flipped(Shaped(shape, levels).split("train"), seed=0).fetch(torch.arange(N), 0).x0
    assert (flipped.shape, flipped.dtype) == (whole.shape, whole.dtype)
    mirrored = torch.tensor(
        [
            torch.equal(after.double(), before.double().flip(-1))
            for after, before in zip(flipped, whole, strict=True)
        ]
    )
    same = torch.tensor([torch.equal(after, before) for after, before in zip(flipped, whole, strict=True)])
    assert (mirrored ^ same).all()
    assert 10 < mirrored.sum() < 30


@pytest.mark.parametrize("shape", [(2,), (1, 64), (4, 64), (4, 4, 6, 6), (1, 4, 6, 6)])
def test_other_shapes_are_refused_before_training(shape):
    data = Shaped(shape)
    with pytest.raises(
        ValueError, match=r"^data.flip=true mirrors images \(C, H, W\), .*: use data.flip=false$"
    ):
        data.setup()
    Shaped(shape, flip=False).setup()
    with pytest.raises(ValueError, match="unpack"):  # nor is anything broadcast without the data module
        Flipped(Shaped(shape, flip=False).split("train"), seed=0).fetch(torch.arange(4), 0)
