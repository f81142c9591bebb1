"""What the bound and the samplers assume of a component, as checks for tests.

A project tests its own components with the checks that the components of this package pass. A failed check
raises ``AssertionError``.
"""

import torch
from torch import Tensor, nn

from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.noise_conditioning import NoiseConditioning
from nelbo.diffusion.parameterizations import LinearParameterization, Parameterization
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.variances import FixedLarge

__all__ = ["check_conditioning", "check_parameterization", "check_schedule"]


def check_schedule(schedule: NoiseSchedule) -> None:
    """Check that logsnr decreases, is finite but for a last level without signal, and is float64.

    In continuous time, the rate is compared with the slope of logsnr.

    Raises:
        AssertionError: for a schedule that is not a chain of noise levels.
    """
    T = schedule.num_steps
    if T is None:
        u = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
        logsnr = schedule.level(u).logsnr.detach()
        ends = torch.stack([u[1:-1] - 1e-6, u[1:-1] + 1e-6])
        slope = (schedule.level(ends[0]).logsnr - schedule.level(ends[1]).logsnr).detach() / 2e-6
        torch.testing.assert_close(schedule.point(u[1:-1]).rate.detach(), slope, rtol=1e-5, atol=1e-5)
    else:
        t = torch.arange(1, T + 1)
        logsnr = schedule.level(t).logsnr
    assert logsnr.dtype == torch.float64, f"logsnr is {logsnr.dtype}, not float64"
    assert bool((logsnr.diff() < 0).all()), "logsnr does not decrease at every step"
    finite = logsnr[:-1] if schedule.zero_terminal_snr else logsnr
    assert bool(finite.isfinite().all()), "logsnr is not finite"


def check_parameterization(parameterization: Parameterization) -> None:
    """Check that x0_hat and eps_hat agree, and that the target of a linear one gives back data and noise.

    x_t = signal x0_hat + noise eps_hat has to hold for every output of the network, up to rounding.

    Raises:
        AssertionError: for coefficients or a target that do not.
    """
    level = NoiseLevel(torch.arange(1, 50), torch.linspace(-12.0, 12.0, 49, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 49, 3, 4, generator=generator, dtype=torch.float64)
    xt = diffuse(x0, eps, level)
    shape = (49, parameterization.output_channels(3), 4)
    output = torch.randn(shape, generator=generator, dtype=torch.float64)
    prediction = Denoiser(_Constant(output), parameterization, FixedLarge())(xt, level)
    _close(diffuse(prediction.x0_hat, prediction.eps_hat, level), xt, 1 + (0.5 * level.logsnr.abs()).exp())
    if not isinstance(parameterization, LinearParameterization):
        return
    target = Denoiser(_Constant(parameterization.target(x0, eps, level)), parameterization, FixedLarge())
    prediction = target(xt, level)
    _close(prediction.x0_hat, x0, 1 + (-0.5 * level.logsnr).exp())
    _close(prediction.eps_hat, eps, 1 + (0.5 * level.logsnr).exp())
    coefficients = (*parameterization.coefficients(level), *parameterization.eps_coefficients(level))
    assert {c.dtype for c in coefficients} == {torch.float64}, "the coefficients are not float64"


def check_conditioning(c_noise: NoiseConditioning, schedule: NoiseSchedule) -> None:
    """Check that c_noise is finite and monotone in the noise level, in float32.

    Args:
        c_noise: of levels of shape (B,).
        schedule: in continuous time, or with timesteps; 100 of its levels are used.

    Raises:
        AssertionError: for values of another shape, or levels that the network cannot tell apart.
    """
    T = schedule.num_steps
    share = torch.linspace(0.0, 1.0, 100 if T is None else min(T, 100), dtype=torch.float64)
    at = share if T is None else 1 + (share * (T - 1)).round().long()
    given = c_noise(schedule.level(at)).detach().float()
    assert given.shape == at.shape, f"c_noise has shape {tuple(given.shape)}, not (B,)"
    assert bool(given.isfinite().all()), "c_noise is not finite"
    steps = given.diff()
    assert bool((steps > 0).all()) or bool((steps < 0).all()), "c_noise is not monotone in the noise level"


class _Constant(nn.Module):
    """A network that returns the same output (B, ...) for every input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, xt: Tensor, c: Tensor, cond: object) -> Tensor:
        return self.output


def _close(actual: Tensor, expected: Tensor, amplification: Tensor) -> None:
    """Assert that both (B, ...) agree up to the rounding of float64 times ``amplification`` (B,)."""
    error = (actual - expected).abs().flatten(1).amax(1)
    worst = (error / amplification).max().item()
    assert worst <= 1e-13, f"the error is {worst:.1e} times the rounding to be expected, instead of 1e-13"
