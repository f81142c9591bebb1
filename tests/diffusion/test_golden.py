"""Parity with OpenAI's improved-diffusion for its weights.

The files in ``tests/golden`` hold what improved-diffusion computed in float32 on a CPU, for two small
U-Nets with random weights. Their steps are 0-based: their t is our step t + 1.

Our float64 tables are more precise than their float32 coefficients, so what is compared is their
rounding: 1e-5 relative, and 1e-4 at the noisiest levels, where 1/sqrt(alpha_bar) amplifies it.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import mean_per_example
from nelbo.diffusion.losses import VLB, Hybrid, NoisyBatch, Simple
from nelbo.diffusion.process import diffuse, posterior
from nelbo.diffusion.samplers import DDIM, Ancestral
from nelbo.diffusion.variances import FixedLarge
from nelbo.interop import from_improved_diffusion

CLIPS = pytest.mark.parametrize(("clip", "name"), [((-1.0, 1.0), "bpd_clip1"), (None, "bpd_clip0")])
IN_BITS = 1 / math.log(2)


@pytest.fixture(scope="module", params=["linear_fixed_large", "cosine_learned_range"])
def golden(request, improved_diffusion_golden):
    """The arrays of a golden file, and the model that reading its weights with its flags gives."""
    file = improved_diffusion_golden(request.param)
    model = from_improved_diffusion(file.weights, **file.flags)
    return SimpleNamespace(
        arrays=file.arrays,
        learned=file.flags["learn_sigma"],
        T=file.flags["diffusion_steps"],
        dims=file.arrays["x0"][0].numel(),
        chain=model.chain,
        denoiser=model.denoiser,
        decoder=DiscretizedGaussian(file.levels, cdf="tanh"),
        step=model.chain.step(file.arrays["loss.t"] + 1),
        noise=lambda i: file.arrays["noise"][i - 1],
    )


@pytest.fixture(scope="module")
def predictions(golden):
    """The predictions at every step: one prediction for all images per step, from batches of steps."""
    x0, result = golden.arrays["x0"], {}
    for index in torch.arange(1, golden.T + 1).split(50):
        level = golden.chain.level(index.repeat_interleave(len(x0)))
        xt = diffuse(x0.repeat(len(index), 1, 1, 1), golden.arrays["noise"][index - 1].flatten(0, 1), level)
        with torch.no_grad():
            p = golden.denoiser(xt, level)
        for row, i in enumerate(index.tolist()):
            rows = slice(row * len(x0), (row + 1) * len(x0))
            var_output = None if p.var_output is None else p.var_output[rows]
            result[i] = Prediction(p.x0_hat[rows], p.eps_hat[rows], p.variance, var_output)
    return result


def close(actual, expected, rtol=1e-5, atol=0.0):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=rtol, atol=atol)


def close_images(actual, expected, rtol=1e-5):
    """Relative to the largest value of each image; single pixels may be 0."""
    size = expected.abs().amax(dim=(1, 2, 3))
    assert ((actual - expected).abs().amax(dim=(1, 2, 3)) <= rtol * size).all()


# ------------------------------------------------------------------ the process


def test_schedule(golden):
    alpha_bar = (1 - golden.arrays["betas_original"]).cumprod(0)
    close(golden.chain.schedule.table(), (alpha_bar / (1 - alpha_bar)).log(), rtol=1e-9, atol=1e-9)


def test_timesteps(golden):
    assert torch.equal(golden.chain.t(), golden.arrays["timesteps_used"] + 1)


def test_noised_images(golden):
    xt = diffuse(golden.arrays["x0"], golden.arrays["loss.noise"], golden.step.t)
    close_images(xt, golden.arrays["x_t"])


def test_posterior(golden):
    q = posterior(golden.arrays["x0"], golden.arrays["x_t"], golden.step)
    close_images(q.mean, golden.arrays["posterior.mean"])
    # theirs has beta-tilde_2 at the first step, where it is 0
    clipped = FixedLarge("beta_tilde").small_log_var(golden.step)[:, None, None, None]
    expected = golden.arrays["posterior.log_variance_clipped"]
    close(clipped.expand_as(expected), expected.double())


# ------------------------------------------------------------------ the denoiser


def at_loss_steps(golden):
    with torch.no_grad():
        return golden.denoiser(golden.arrays["x_t"], golden.step.t)


def test_reverse_step(golden):
    prediction = at_loss_steps(golden)
    mean = posterior(prediction.x0_hat, golden.arrays["x_t"], golden.step).mean
    close_images(prediction.x0_hat, golden.arrays["p.pred_xstart"])
    close_images(mean, golden.arrays["p.mean"])
    expected = golden.arrays["p.log_variance"]
    close(prediction.log_var(golden.step).expand_as(expected), expected)


# ------------------------------------------------------------------ the losses


def loss_terms(golden, loss):
    noisy = NoisyBatch(golden.arrays["x0"], golden.arrays["loss.noise"], golden.step)
    with torch.no_grad():
        return loss(noisy, at_loss_steps(golden), VariationalBound(golden.chain, golden.decoder))


def test_simple_loss(golden):
    """MSE, which without a learned variance is also RESCALED_MSE."""
    loss = loss_terms(golden, Simple()).loss
    close(loss, golden.arrays["loss.MSE.mse"])
    if not golden.learned:
        close(loss, golden.arrays["loss.MSE.loss"])
        close(loss, golden.arrays["loss.RESCALED_MSE.loss"])


@pytest.mark.parametrize("golden", ["cosine_learned_range"], indirect=True)
def test_hybrid_loss(golden):
    """RESCALED_MSE: the MSE plus T / 1000 of the bound's term. MSE adds the whole term."""
    terms = loss_terms(golden, Hybrid(0.001))
    close(terms.loss, golden.arrays["loss.RESCALED_MSE.loss"])
    close(terms.bound / golden.dims * IN_BITS * golden.T / 1000, golden.arrays["loss.RESCALED_MSE.vb"])
    close(loss_terms(golden, Hybrid(1 / golden.T)).loss, golden.arrays["loss.MSE.loss"])


def test_vlb_loss(golden):
    """KL is the bound's term in bits per dimension, RESCALED_KL T times that."""
    terms = loss_terms(golden, VLB())
    close(terms.bound / golden.dims * IN_BITS, golden.arrays["loss.KL.loss"])
    close(terms.loss * IN_BITS, golden.arrays["loss.RESCALED_KL.loss"])


# ------------------------------------------------------------------ the bound


@CLIPS
def test_bound_of_every_image_at_every_step(golden, predictions, clip, name):
    bound = VariationalBound(golden.chain, golden.decoder, clip)
    x0 = golden.arrays["x0"]
    terms = bound.terms(lambda xt, level, cond: predictions[level.t[0].item()], x0, golden.noise)
    in_bits = IN_BITS / golden.dims
    vb = golden.arrays[f"{name}.vb"]
    close(terms.reconstruction * in_bits, vb[:, 0])
    # their KL is -1 + r + exp(-r) with r down to 1e-6, in float32: off by up to 3 halves of an ulp of 1
    rounding = 1.5 * torch.finfo(torch.float32).eps * IN_BITS
    usual = golden.chain.level(torch.arange(2, golden.T + 1)).alpha_bar > 1e-3
    close(terms.denoising[:, usual] * in_bits, vb[:, 1:][:, usual], atol=rounding)
    close(terms.denoising * in_bits, vb[:, 1:], rtol=1e-4, atol=rounding)
    close(terms.prior * in_bits, golden.arrays["prior_bpd"], rtol=1e-4)
    close(terms.total * in_bits, golden.arrays[f"{name}.total"], rtol=1e-4)


@CLIPS
def test_errors_of_every_image_at_every_step(golden, predictions, clip, name):
    x0 = golden.arrays["x0"]
    for i in range(1, golden.T + 1):
        level = golden.chain.level(torch.full((len(x0),), i))
        prediction = predictions[i]
        if clip is not None:
            prediction = prediction.clip(diffuse(x0, golden.noise(i), level), level, *clip)
        rtol = 1e-5 if level.alpha_bar[0] > 1e-3 else 1e-4
        x0_mse = mean_per_example((prediction.x0_hat - x0).square())
        eps_mse = mean_per_example((prediction.eps_hat - golden.noise(i)).square())
        close(x0_mse, golden.arrays[f"{name}.xstart_mse"][:, i - 1], rtol=rtol)
        close(eps_mse, golden.arrays[f"{name}.mse"][:, i - 1], rtol=rtol)


# ------------------------------------------------------------------ the samplers

RANGE = (-1.0, 1.0)
SAMPLERS = {
    "ancestral": Ancestral(clip=RANGE),
    "ddim_eta0": DDIM(0.0, clip=RANGE),
    "ddim_eta1": DDIM(1.0, clip=RANGE),
}


@pytest.mark.parametrize(
    "golden",
    ["cosine_learned_range", pytest.param("linear_fixed_large", marks=pytest.mark.slow)],
    indirect=True,
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_samples(golden, name):
    x = SAMPLERS[name].sample(golden.denoiser, golden.chain, golden.arrays["sample.x_T"], golden.noise)
    error = (x - golden.arrays[f"sample.{name}"]).abs()
    # hundreds of evaluations amplify the rounding of the first, where 1/sqrt(alpha_bar) is up to 2000
    assert error.max() < 1e-3
    assert (error < 1e-4).float().mean() > 0.999
