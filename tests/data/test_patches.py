import pytest
import torch

from nelbo.data.patches import COLUMNS, Patches, RandomCrops


def test_regions_are_disjoint_and_complete():
    taken = torch.zeros(640, dtype=torch.int64)
    for columns in COLUMNS.values():
        taken[columns] += 1
    assert taken.tolist() == [1] * 640


def test_crops_stay_in_their_region():
    # the value of a pixel is its column
    columns = torch.arange(50, dtype=torch.uint8).expand(2, 3, 40, 50)
    crops = RandomCrops(columns[..., 10:30], size=8, n=500, seed=0)
    x = crops.fetch(torch.arange(500), epoch=0).x0
    assert x.shape == (500, 3, 8, 8)
    assert (x.min(), x.max()) == (10, 29)
    assert torch.equal(x[..., 1:] - x[..., :-1], torch.ones_like(x[..., 1:]))


def test_a_crop_is_a_piece_of_a_photograph():
    torch.manual_seed(0)
    images = torch.randint(256, (2, 3, 20, 20), dtype=torch.uint8)
    pieces = images.unfold(2, 5, 1).unfold(3, 5, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 75)
    x = RandomCrops(images, size=5, n=100, seed=0).fetch(torch.arange(100), epoch=1).x0
    assert (x.reshape(100, 1, 75) == pieces).all(dim=-1).any(dim=-1).all()


def test_a_crop_depends_on_the_epoch_and_the_index_alone():
    crops = Patches(seed=4).split("train")
    every = crops.fetch(torch.arange(len(crops)), epoch=3).x0
    some = torch.tensor([8000, 5])
    assert torch.equal(crops.fetch(some, epoch=3).x0, every[some])
    assert not torch.equal(crops.fetch(some, epoch=4).x0, every[some])


def test_held_out_crops_are_all_different():
    tiles = torch.cat([Patches().split(name).x for name in ("val", "test")])
    assert tiles.shape == (156, 3, 32, 32)
    assert len(tiles.flatten(1).unique(dim=0)) == 156


def test_a_crop_larger_than_a_region_is_refused():
    assert len(Patches(size=96).split("val")) == 8
    with pytest.raises(ValueError, match="between 1 and 96, got 97"):
        Patches(size=97)
