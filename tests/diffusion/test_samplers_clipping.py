"""Clipping of x0_hat: clamping, dynamic thresholding, and invalid arguments."""

import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.exact import gaussian_denoiser
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.samplers.clipping import dynamic_threshold, quantile_per_example
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.spacings import Trailing
from nelbo.diffusion.variances import FixedSmall


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ the formula


@pytest.mark.parametrize("quantile", [0.001, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (4, 3, 5, 7)])
def test_the_quantile_is_that_of_each_example(quantile, shape):
    x = normal(*shape)
    expected = torch.stack([example.quantile(quantile) for example in x])
    torch.testing.assert_close(quantile_per_example(x, quantile), expected)


def test_the_threshold_as_published():
    """Imagen: s = max(1, quantile of |x0_hat|), clip to [-s, s], divide by s."""
    x0_hat = (
        normal(6, 3, 8, 8)
        * torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0, 5.0], dtype=torch.float64)[:, None, None, None]
    )
    for example, result in zip(x0_hat, dynamic_threshold(x0_hat, -1.0, 1.0, 0.9), strict=True):
        s = max(1.0, example.abs().quantile(0.9).item())
        torch.testing.assert_close(result, example.clamp(-s, s) / s)


def test_an_example_in_range_is_unchanged():
    x0_hat = normal(3, 3, 8, 8).clamp(-1, 1)
    torch.testing.assert_close(dynamic_threshold(x0_hat, -1.0, 1.0, 0.995), x0_hat)


def test_the_largest_value_as_quantile_shrinks_without_clamping():
    x0_hat = 5 * normal(3, 3, 8, 8)
    largest = x0_hat.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(dynamic_threshold(x0_hat, -1.0, 1.0, 1.0), x0_hat / largest)


def test_dynamic_threshold_is_equivariant_to_affine_ranges():
    x0_hat = 3 * normal(3, 3, 8, 8)
    expected = 0.5 * (dynamic_threshold(x0_hat, -1.0, 1.0, 0.9) + 1)
    torch.testing.assert_close(dynamic_threshold(0.5 * (x0_hat + 1), 0.0, 1.0, 0.9), expected)


# ------------------------------------------------------------------ every sampler


def seen_by_step(sampler, monkeypatch):
    """The arguments of the steps of a sampler for data that is much wider than its range."""
    seen, step = [], type(sampler).step

    def watched(self, xt, prediction, transition, noise, state):
        seen.append((xt, prediction, transition.t))
        return step(self, xt, prediction, transition, noise, state)

    monkeypatch.setattr(type(sampler), "step", watched)
    chain, noise = Trailing().chain(CosineSchedule(50), 10), normal(11, 6, 3, 4, 4)
    exact = gaussian_denoiser((3, 4, 4), 3.0, FixedSmall())
    sampler.sample(exact, chain, noise[0], lambda i: noise[i])
    return seen, exact


@pytest.mark.parametrize("dynamic_clip", [None, 0.9])
def test_steps_receive_a_clipped_prediction_consistent_with_x_t(make_sampler, dynamic_clip, monkeypatch):
    sampler = make_sampler(clip=[-0.5, 0.5], dynamic_clip=dynamic_clip)
    seen, exact = seen_by_step(sampler, monkeypatch)
    assert len(seen) == 10
    for xt, prediction, level in seen:
        raw = exact(xt, level).x0_hat
        expected = raw.clamp(-0.5, 0.5) if dynamic_clip is None else dynamic_threshold(raw, -0.5, 0.5, 0.9)
        assert torch.equal(prediction.x0_hat, expected)
        assert prediction.x0_hat.abs().max() <= 0.5 + 1e-12
        torch.testing.assert_close(diffuse(prediction.x0_hat, prediction.eps_hat, level), xt)


def test_predictions_are_unchanged_without_a_range(make_sampler, monkeypatch):
    seen, exact = seen_by_step(make_sampler(clip=None), monkeypatch)
    assert all(torch.equal(p.x0_hat, exact(xt, level).x0_hat) for xt, p, level in seen)


def test_a_second_evaluation_is_clipped_too(make_sampler):
    """For a network that is far off at every level, samples are at the ends of the range."""
    chain, noise = Chain(CosineSchedule(20)), normal(21, 4, 3)

    def off(xt, level, cond):
        exact = gaussian_denoiser((3,), 1.0, FixedSmall())(xt, level)
        return exact.with_x0(torch.full_like(xt, 100.0), xt, level)

    x = make_sampler(clip=[-1, 1]).sample(off, chain, noise[0], lambda i: noise[i])
    torch.testing.assert_close(x, torch.ones_like(x))


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "clip", [[1.0, -1.0], [1.0, 1.0], [1.0], [-1.0, 0.0, 1.0], 1.0, "abc", ["a", "b"], [float("nan"), 1.0]]
)
def test_an_invalid_clip_raises(make_sampler, clip):
    with pytest.raises(ValueError, match=r"^sampler\.clip=.*: expected \[low, high\] .*, or null$"):
        make_sampler(clip=clip)


@pytest.mark.parametrize("dynamic_clip", [0.0, -0.1, 1.1, 99.5, float("nan"), "abc", [0.9]])
def test_an_invalid_dynamic_clip_raises(make_sampler, dynamic_clip):
    with pytest.raises(ValueError, match=r"^sampler\.dynamic_clip=.* must be inside \(0, 1\], or null$"):
        make_sampler(dynamic_clip=dynamic_clip)


def test_dynamic_clip_without_a_range_raises(make_sampler):
    with pytest.raises(ValueError, match=r"^sampler\.dynamic_clip needs a range: set sampler\.clip="):
        make_sampler(clip=None, dynamic_clip=0.995)
