"""The continuous and the discrete bound of VDM's own code (google-research/vdm), term by term and in gradients."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousChain, LevelChain
from nelbo.diffusion.decoders import Softmax
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, Step
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CurvePoint, NoiseSchedule
from nelbo.diffusion.variances import FixedSmall

GOLDEN = Path(__file__).parents[1] / "golden"


class TheirLevels(Softmax):
    """VDM's data values: the centres of 256 bins inside (-1, 1)."""

    def __init__(self) -> None:
        super().__init__(256)
        self.values = [2.0 * (k + 0.5) / 256 - 1.0 for k in range(256)]


class TheirSchedule(NoiseSchedule):
    """VDM's gamma = -logsnr, with the parameters of the golden file."""

    def __init__(self, arrays) -> None:
        nn.Module.__init__(self)
        self.num_steps, self.half_bin, self._ends = None, None, (0.0, 1.0)
        self.weights = nn.ParameterDict(
            {
                name.removeprefix("param/gamma/").replace("/", "_"): nn.Parameter(torch.from_numpy(array))
                for name, array in arrays.items()
                if name.startswith("param/gamma/")
            }
        )

    def logsnr(self, u):
        w = {name: value.double() for name, value in self.weights.items()}
        if "w" in w:
            return -(w["b"] + w["w"].abs() * u)
        h = w["l1_kernel"].abs().squeeze() * u + w["l1_bias"].squeeze()
        hidden = torch.tanh(0.5 * ((2.0 * u[..., None] - 1.0) * w["l2_kernel"].abs()[0] + w["l2_bias"]))
        return -(h + (hidden @ w["l3_kernel"].abs()[:, 0]) / len(w["l2_bias"]))

    def point(self, u):
        at = u.detach().clone().requires_grad_()
        logsnr = self.logsnr(at)
        (slope,) = torch.autograd.grad(logsnr.sum(), at, create_graph=True)
        return CurvePoint(NoiseLevel(u, logsnr), -slope)


class Golden:
    def __init__(self, name) -> None:
        self.config = json.loads((GOLDEN / f"{name}.json").read_text())
        raw = dict(np.load(GOLDEN / f"{name}.npz"))
        self.raw = raw
        images = ("x", "eps", "eps_0", "z_t", "eps_hat")
        self.images = {k: torch.from_numpy(raw[k]).movedim(-1, 1).contiguous() for k in images}
        self.x0 = 2.0 * (self.images["x"].double() + 0.5) / 256 - 1.0
        self.t = torch.from_numpy(raw["t"]).double()
        self.schedule = TheirSchedule(raw)
        self.T = self.config["T"]

    def step(self):
        if self.T == 0:
            chain = ContinuousChain(self.schedule, 1)
            return chain, chain.step(torch.full((len(self.t),), 2), self.t)
        chain = LevelChain(self.schedule, torch.linspace(0.0, 1.0, self.T + 1, dtype=torch.float64))
        return chain, chain.step((self.t * self.T).round().long() + 1)


@pytest.fixture(scope="module", params=["vdm_continuous_nnet", "vdm_discrete_scalar"])
def golden(request):
    return Golden(request.param)


def of(x0, level, eps_hat):
    """The prediction whose eps_hat is given."""
    xt = diffuse(x0, torch.zeros_like(x0), level)
    return Prediction(x0, eps_hat, FixedSmall("beta")).with_x0(x0, xt, level)


def prediction_of(xt, eps_hat, level):
    signal, noise = level.signal_scale[:, None, None, None], level.noise_scale[:, None, None, None]
    return Prediction((xt - noise * eps_hat) / signal, eps_hat, FixedSmall("beta"))


def totals(golden):
    """Reconstruction, prior and diffusion losses of each image in nats, differentiable in gamma's parameters."""
    chain, step = golden.step()
    bound = VariationalBound(chain, TheirLevels())
    x0, eps_hat = golden.x0, golden.images["eps_hat"].double()
    zt = diffuse(x0, golden.images["eps"].double(), step.t)
    diffusion = bound.denoising(step, x0, prediction_of(zt, eps_hat, step.t))
    if golden.T:
        diffusion = golden.T * diffusion
    first = chain.step(torch.ones(len(x0), dtype=torch.int64))
    z0 = diffuse(x0, golden.images["eps_0"].double(), first.t)
    reconstruction = bound.reconstruction(first, x0, prediction_of(z0, torch.zeros_like(x0), first.t))
    return reconstruction, bound.prior(x0), diffusion, step, zt


def test_the_curve_is_that_of_their_code(golden):
    u = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    theirs = torch.from_numpy(golden.raw["gamma_curve"]).double()
    torch.testing.assert_close(-golden.schedule.logsnr(u), theirs, rtol=1e-5, atol=1e-5)


def test_the_terms_are_those_of_their_code(golden):
    reconstruction, prior, diffusion, step, zt = totals(golden)
    for ours, name in ((reconstruction, "loss_recon"), (prior, "loss_klz"), (diffusion, "loss_diff")):
        theirs = torch.from_numpy(golden.raw[name]).double()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(zt.float(), golden.images["z_t"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(-step.t.logsnr.float(), torch.from_numpy(golden.raw["gamma"]), rtol=1e-5, atol=1e-5)
    if golden.T == 0:
        torch.testing.assert_close(
            step.rate.float(), torch.from_numpy(golden.raw["dgamma_dt"]), rtol=1e-5, atol=1e-5
        )
