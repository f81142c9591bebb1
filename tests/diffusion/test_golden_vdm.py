"""The bound of VDM's own code (google-research/vdm), continuous and discrete: its terms and their gradients.

Their float32 network has Fourier features of up to 2 pi 2^7 z, which amplify the rounding of z. Terms agree
to 1e-5. Gradients agree to 2e-4 of their largest entry; a float64 network of ours moves them as much.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime, LevelChain
from nelbo.diffusion.decoders import Softmax
from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.level import NoiseLevel, scale
from nelbo.diffusion.noise_conditioning import LogSNRConditioning
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CurvePoint, NoiseSchedule
from nelbo.diffusion.variances import FixedSmall
from nelbo.models import VDMUNet
from tests.vdm_weights import weights_of_vdm

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
        self.x0 = 2.0 * (self.images["x"].float() + 0.5) / 256 - 1.0
        self.t = torch.from_numpy(raw["t"]).double()
        self.schedule = TheirSchedule(raw)
        self.T = self.config["T"]

    def step(self):
        if self.T == 0:
            chain = ContinuousTime(self.schedule, 1)
            return chain, chain.step(torch.full((len(self.t),), 2), self.t)
        chain = LevelChain(self.schedule, torch.linspace(0.0, 1.0, self.T + 1, dtype=torch.float64))
        return chain, chain.step((self.t * self.T).round().long() + 1)


@pytest.fixture(scope="module", params=["vdm_continuous_nnet", "vdm_discrete_scalar"])
def golden(request):
    return Golden(request.param)


@pytest.fixture(scope="module")
def denoiser(golden):
    network = VDMUNet((3, 8, 8), 3, channels=32, depth=2, fourier_exponents=(6, 7), dropout=0.0)
    network.load_state_dict(weights_of_vdm({k: torch.from_numpy(v) for k, v in golden.raw.items()}))
    return Denoiser(network, Eps(), FixedSmall("beta"), LogSNRConditioning(13.3, -5.0))


def losses(golden, denoiser):
    """Reconstruction, prior and diffusion losses of each image in nats, the step of the last one, and z_t."""
    chain, step = golden.step()
    bound = VariationalBound(chain, TheirLevels())
    zt = diffuse(golden.x0, golden.images["eps"], step.t)
    diffusion = bound.denoising(step, golden.x0, denoiser(zt, step.t))
    if golden.T:
        diffusion = golden.T * diffusion
    first = chain.step(torch.ones(len(golden.x0), dtype=torch.int64))
    z0 = diffuse(golden.x0.double(), golden.images["eps_0"].double(), first.t)
    # this decoder depends on z_0 alone, whatever is predicted
    at_z0 = Prediction(scale(1.0 / first.t.signal_scale, z0), torch.zeros_like(z0), FixedSmall("beta"))
    return bound.reconstruction(first, golden.x0.double(), at_z0), bound.prior(golden.x0), diffusion, step, zt


def close(ours, theirs, **tolerances):
    theirs = torch.as_tensor(theirs)
    torch.testing.assert_close(
        ours.detach().to(theirs.dtype), theirs, **{"rtol": 1e-5, "atol": 1e-5} | tolerances
    )


def test_the_curve_is_that_of_their_code(golden):
    u = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    close(-golden.schedule.logsnr(u), golden.raw["gamma_curve"])


def test_the_noisy_images_and_their_levels_are_those_of_their_code(golden, denoiser):
    *_, step, zt = losses(golden, denoiser)
    close(zt, golden.images["z_t"])
    close(-step.t.logsnr, golden.raw["gamma"])
    close(denoiser(zt, step.t).eps_hat, golden.images["eps_hat"], atol=3e-5)
    if golden.T == 0:
        close(step.rate, golden.raw["dgamma_dt"])


def test_the_losses_are_those_of_their_code(golden, denoiser):
    """Theirs are sums of 192 logarithms in float32, which rounds them by up to 2e-5 nats."""
    for ours, name in zip(losses(golden, denoiser), ("loss_recon", "loss_klz", "loss_diff"), strict=False):
        close(ours, golden.raw[name], atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_the_gradients_are_those_of_their_code(golden, denoiser):
    golden.schedule.zero_grad()
    denoiser.zero_grad()
    reconstruction, prior, diffusion, *_ = losses(golden, denoiser)
    (reconstruction + prior + diffusion).mean().backward()
    for name, parameter in golden.schedule.weights.items():
        theirs = torch.from_numpy(golden.raw[f"grad/gamma/{name.replace('_', '/')}"])
        size = theirs.abs().max().item()
        close(parameter.grad, theirs, rtol=0, atol=2e-4 * size, msg=lambda m, name=name: f"{name}: {m}")
    kernel = torch.from_numpy(golden.raw["grad/score_model/conv_out/kernel"]).permute(3, 2, 0, 1)
    close(denoiser.network.out[2].weight.grad, kernel, rtol=0, atol=5e-5 * kernel.abs().max().item())
