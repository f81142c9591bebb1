"""Samples of conditional models have the class proportions of the data."""

import math
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from nelbo.compose import cond as compose_cond
from nelbo.data.gaussian_mixture import GaussianMixture
from nelbo.data.proportions import proportional_labels
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import scale
from nelbo.diffusion.samplers import Heun
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.spacings import Trailing
from nelbo.diffusion.variances import FixedSmall
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.training.callbacks import SampleQuality

SHARES = (0.5, 0.7, 0.9, 0.99)
DIMS, STD, N = 16, 0.3, 1000


def imbalanced(share: float) -> GaussianMixture:
    """Two classes in 16 dimensions, 8 apart, one of which has this share of the data."""
    means = [[1.0] * DIMS, [-1.0] * DIMS]
    return GaussianMixture(means=means, weights=[share, 1 - share], std=STD, n_train=20_000)


def perfect(data: GaussianMixture):
    """E[x_0 | x_t, class], exactly."""

    def denoise(xt, level, cond):
        mean = data.means[cond].to(xt)
        var_t = level.alpha_bar * STD**2 + level.noise_scale.square()
        x0_hat = mean + scale(level.signal_scale * STD**2 / var_t, xt - scale(level.signal_scale, mean))
        eps_hat = scale(1.0 / level.noise_scale, xt - scale(level.signal_scale, x0_hat))
        return Prediction(x0_hat=x0_hat, eps_hat=eps_hat, variance=FixedSmall())

    return denoise


@pytest.mark.parametrize("share", SHARES)
def test_fd_pixels_of_a_perfect_conditional_model_is_near_0(share, tmp_path):
    """For any imbalance; with the classes in turn it was 0.01, 2.8, 12.9 and 25.3."""
    data = imbalanced(share)
    quality = SampleQuality(
        Heun(steps=18),
        Trailing(),
        Pixels(),
        data.spec,
        str(tmp_path),
        N,
        pairwise=0,
        cache=str(tmp_path),
    )
    alone = SimpleNamespace(broadcast=lambda x: x, reduce=lambda x, reduce_op: x)
    trainer = SimpleNamespace(
        datamodule=data, global_rank=0, world_size=1, is_global_zero=True, strategy=alone
    )
    module = SimpleNamespace(
        denoiser=perfect(data),
        bound=SimpleNamespace(chain=Chain(CosineSchedule(1000))),
        device=torch.device("cpu"),
        conditional=True,
    )
    reference = quality._make_reference(trainer, module)  # pyright: ignore[reportArgumentType]
    chain = Trailing().chain(CosineSchedule(1000), 18)
    metrics = quality._measure(trainer, module, chain, reference)  # pyright: ignore[reportArgumentType]
    assert metrics["fd_pixels"] < 0.03


@pytest.mark.parametrize("counts", [[5, 5, 5], [90, 10], [1, 0, 98, 1], [183, 174, 177], [7]])
def test_every_number_of_first_labels_has_the_proportions_of_the_data(counts):
    given = torch.tensor(counts)
    labels = proportional_labels(given, 500)
    assert labels.dtype == torch.int64
    seen = torch.nn.functional.one_hot(labels, len(counts)).cumsum(0)
    quota = given / given.sum() * torch.arange(1, 501)[:, None]
    assert (seen - quota).abs().max() < 1.0
    for n in (1, 2, 7, 100):
        assert torch.equal(proportional_labels(given, n), labels[:n])


def test_classes_of_equal_counts_take_turns():
    assert proportional_labels(torch.tensor([44, 44, 44]), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("is_recorded", [True, False], ids=["in the checkpoint", "of an older checkpoint"])
@pytest.mark.parametrize("share", SHARES)
def test_samples_that_are_compared_with_the_data_have_its_proportions(share, is_recorded, monkeypatch):
    """In ``sample.py``; without features, or with a chosen class, they have not."""
    data = imbalanced(share)
    label = data.split("train").label
    assert label is not None
    record = SimpleNamespace(class_counts=tuple(label.bincount().tolist())) if is_recorded else None
    # what is in the checkpoint needs no data
    monkeypatch.setattr(compose_cond, "read_data", lambda model: None if is_recorded else data)
    model = SimpleNamespace(spec=data.spec, module=SimpleNamespace(conditional=True), data=record)

    def choose(**options):
        config = OmegaConf.create({"n": N, "cond": None, "features": None} | options)
        return compose_cond.choose_cond(config, model)  # pyright: ignore[reportArgumentType]

    first = (label == 0).double().mean().item()
    compared = choose(features={"_target_": "Pixels"})
    assert abs((compared == 0).sum().item() - N * first) <= 1
    assert math.isclose((choose() == 0).double().mean().item(), 0.5)
    chosen = choose(features={"_target_": "Pixels"}, cond=1)
    assert chosen is not None
    assert (chosen == 1).all()
