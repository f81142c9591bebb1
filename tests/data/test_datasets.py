"""Properties of all data sets, tested on those without files."""

from itertools import islice

import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.data.gaussian import Gaussian
from nelbo.data.gaussian_mixture import GaussianMixture
from nelbo.data.patches import Patches

SPLITS = ("train", "val", "test")
anywhere = pytest.mark.parametrize("kind", [Digits, Gaussian, GaussianMixture, Patches])


def batches(loader, data):
    return [data.on_after_batch_transfer(batch) for batch in islice(loader, 5)]


@anywhere
def test_batches_agree_with_the_spec(kind):
    data = kind(batch_size=64, seed=1)
    data.setup()
    spec = data.spec
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in batches(loader, data):
            assert batch.x0.shape == (len(batch.index), *spec.shape)
            assert batch.x0.dtype == torch.float32
            assert batch.index.dtype == torch.int64
            if spec.levels is not None:
                level = (batch.x0.double() + 1) / (2 * spec.half_bin)
                assert (level - level.round()).abs().max() < 1e-4
                assert -1 <= batch.x0.min() <= batch.x0.max() <= 1
            if spec.num_classes is None:
                assert batch.cond is None
            else:
                assert batch.cond.dtype == torch.int64
                assert 0 <= batch.cond.min() <= batch.cond.max() < spec.num_classes


@anywhere
def test_contents_do_not_depend_on_the_seed(kind):
    first, second = kind(seed=1), kind(seed=2)
    for name in ("val", "test"):
        for a, b in zip(first.eval_dataloader(name), second.eval_dataloader(name), strict=True):
            assert torch.equal(a.x0, b.x0)
    some = torch.arange(50)
    if kind is not Patches:  # which has no fixed set of training images
        assert torch.equal(first.split("train").fetch(some, 0).x0, second.split("train").fetch(some, 3).x0)


@anywhere
def test_training_depends_only_on_the_seed_and_the_epoch(kind):
    def first_batch(seed, epoch):
        loader = kind(seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return next(iter(loader)).x0

    assert torch.equal(first_batch(1, 2), first_batch(1, 2))
    assert not torch.equal(first_batch(1, 2), first_batch(1, 3))
    assert not torch.equal(first_batch(1, 2), first_batch(2, 2))


@anywhere
def test_an_unknown_split_raises_with_the_choices(kind):
    with pytest.raises(ValueError, match="no split 'validation': choose one of train, val, test"):
        kind().split("validation")


def test_setup_reads_what_the_stage_needs():
    class Remembering(Digits):
        def read_split(self, name):
            read.append(name)
            return super().read_split(name)

    for stage, expected in {
        "fit": ["train", "val"],
        "validate": ["val"],
        "test": ["test"],
        None: ["train", "val", "test"],
    }.items():
        read = []
        data = Remembering()
        data.setup(stage)
        data.setup(stage)
        assert read == expected


def test_the_digits_are_all_there_once_and_every_class_is_held_out():
    splits = [Digits().split(name) for name in SPLITS]
    assert [len(split) for split in splits] == [1437, 180, 180]
    for split in splits[1:]:
        assert torch.bincount(split.label).min() >= 17
    # the images of the set are all different
    assert len(torch.cat([split.x for split in splits]).flatten(1).unique(dim=0)) == 1797


def test_the_first_held_out_digits_are_of_several_classes():
    assert len(Digits().split("test").label[:30].unique()) >= 8


def test_gaussian_has_its_standard_deviation():
    x = Gaussian(dims=3, std=0.5).split("train").x
    assert x.shape == (50_000, 3)
    assert x.mean().abs() < 0.01
    assert x.std() == pytest.approx(0.5, abs=0.005)


def test_mixture_has_its_components():
    means = [[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]]
    data = GaussianMixture(means=means, weights=[1, 3], std=0.2)
    assert data.weights.tolist() == [0.25, 0.75]
    assert data.spec.shape == (3,)
    assert data.spec.num_classes == 2
    split = data.split("train")
    for k, mean in enumerate(means):
        mine = split.x[split.label == k]
        assert len(mine) / len(split) == pytest.approx(data.weights[k].item(), abs=0.01)
        torch.testing.assert_close(mine.mean(dim=0), torch.tensor(mean), rtol=0, atol=0.01)
        assert (mine - mine.mean(dim=0)).std() == pytest.approx(0.2, abs=0.005)


def test_mixture_is_on_a_circle_by_default():
    data = GaussianMixture(components=5, radius=3)
    torch.testing.assert_close(data.means.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(data.means.sum(dim=0), torch.zeros(2), rtol=0, atol=1e-5)


def test_mixture_with_too_few_weights_raises():
    with pytest.raises(ValueError, match="2 entries for 8 components"):
        GaussianMixture(weights=[0.5, 0.5])
