"""The forward process q and its exact posterior (DDPM, Ho et al. 2020, section 2).

    q(x_t | x_0)      = N(signal_t x_0, noise_t^2 I)                          equation 4
    q(x_t | x_s)      = N(signal_t / signal_s x_s, noise_t^2 c I)             equation 2
    q(x_s | x_t, x_0) = N(signal_s/signal_t (1-c) x_t + signal_s c x_0,
                          noise_s^2 c I)                                      equations 6, 7

for s cleaner than t and c = 1 - SNR_t / SNR_s. For consecutive timesteps noise_t^2 c is beta_t and
noise_s^2 c is the posterior variance, beta-tilde_t.
"""

import torch
from torch import Tensor

from nelbo.diffusion.gaussian import DiagonalGaussian
from nelbo.diffusion.level import NoiseLevel, Step, per_example, scale


def diffuse(x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
    """x_t = signal x_0 + noise eps: a draw from q(x_t | x_0), (B, ...).

    Args:
        x0: (B, ...) data.
        eps: (B, ...) standard normal noise.
        level: noise level of each example, (B,) or ().
    """
    return scale(level.signal_scale, x0) + scale(level.noise_scale, eps)


def noise_in(xt: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
    """The eps of x_t = signal x_0 + noise eps, (B, ...): the inverse of :func:`diffuse`.

    Args:
        xt: (B, ...).
        x0: (B, ...) data.
        level: noise level of each example, (B,) or ().
    """
    return scale(1.0 / level.noise_scale, xt) - scale((0.5 * level.logsnr).exp(), x0)


def marginal(x0: Tensor, level: NoiseLevel) -> DiagonalGaussian:
    """q(x_t | x_0), for data (B, ...)."""
    return DiagonalGaussian(
        mean=scale(level.signal_scale, x0),
        log_var=per_example(level.log_noise_var, x0),
    )


def forward(xs: Tensor, step: Step) -> DiagonalGaussian:
    """q(x_t | x_s), for x_s (B, ...)."""
    ratio = (0.5 * (step.t.log_signal_var - step.s.log_signal_var)).exp()
    return DiagonalGaussian(mean=scale(ratio, xs), log_var=per_example(step.log_beta, xs))


def posterior(x0: Tensor, xt: Tensor, step: Step) -> DiagonalGaussian:
    """q(x_s | x_t, x_0), (B, ...); with x0_hat in place of x_0, its mean is that of the reverse step."""
    from_xt, from_x0 = posterior_coefficients(step)
    return DiagonalGaussian(
        mean=scale(from_xt, xt) + scale(from_x0, x0),
        log_var=per_example(step.log_beta_tilde, x0),
    )


def posterior_coefficients(step: Step) -> tuple[Tensor, Tensor]:
    """Weights of x_t and x_0 in the posterior mean, each (B,) float64; (0, 1) for the first step."""
    ratio = (0.5 * (step.s.log_signal_var - step.t.log_signal_var)).exp()
    kept = torch.exp(step.t.logsnr - step.s.logsnr)  # 1 - c
    from_xt = (ratio * kept).masked_fill(step.t.logsnr.isneginf(), 0.0)  # ratio is infinite without signal
    return from_xt, step.s.signal_scale * step.step_noise_fraction
