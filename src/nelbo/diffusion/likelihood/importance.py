"""The importance-weighted bound (IWAE, Burda et al. 2016) over trajectories of the forward process.

    log p(x_0) >= E log 1/M sum_m w_m,    w = p(x_0, x_{1:K}) / q(x_{1:K} | x_0)

For M = 1 it is the variational bound, and it rises monotonically in M to log p(x_0) of the chain. The exact
posterior draw of a sample, the trajectory that made it, gives E log w >= log p(x_0) instead.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import finite_chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.gaussian import DiagonalGaussian
from nelbo.diffusion.level import NoiseLevel, Step, scale, sum_per_example
from nelbo.diffusion.process import diffuse, marginal, posterior, posterior_coefficients


def log_weight(
    bound: VariationalBound,
    denoise: Denoise,
    x0: Tensor,
    noise: Callable[[], Tensor],
    cond: Cond | None = None,
) -> Tensor:
    """log w of one trajectory of each example, (B,) float64 nats; K network evaluations.

    The trajectory is drawn from the noisiest level on: x_K ~ q(x_K | x_0), x_{i-1} ~ q(x_{i-1} | x_i, x_0).

    Args:
        bound: chain, decoder and clipping.
        denoise: maps (x_t, level, cond) to a prediction.
        x0: (B, ...) data.
        noise: returns standard normal noise (B, ...), K times.
        cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).

    Raises:
        ValueError: for continuous time, see :func:`finite_chain`.
    """
    chain, clean = finite_chain(bound.chain), x0.double()
    noisiest = chain.level(torch.full((1,), chain.num_steps, device=x0.device))
    xt = diffuse(clean, noise().double(), noisiest)
    log_w = _prior_log_ratio(clean, xt, noisiest)
    for i in range(chain.num_steps, 0, -1):
        step = chain.step(torch.full((len(x0),), i, device=x0.device))
        prediction = denoise(xt.to(x0.dtype), step.t, cond)
        if i == 1:
            return log_w - bound.reconstruction(step, x0, prediction).double()
        xs = posterior(clean, xt, step).sample(noise().double())
        log_w = log_w + step_log_ratio(bound, step, clean, xt, xs, prediction)
        xt = xs
    raise AssertionError("a chain has at least one step")


def step_log_ratio(
    bound: VariationalBound, step: Step, x0: Tensor, xt: Tensor, xs: Tensor, prediction: Prediction
) -> Tensor:
    """log p(x_s | x_t) - log q(x_s | x_t, x_0), (B,) float64 nats, for steps that do not end in data.

    Both means have the same coefficient of x_t, so their difference is computed from x_0 - x0_hat.

    Args:
        bound: clips x0_hat.
        step: transitions of shape (B,).
        x0: (B, ...) float64 data.
        xt: (B, ...) float64.
        xs: (B, ...) float64.
        prediction: of the denoiser at ``xt``.
    """
    q = posterior(x0, xt, step)
    _, from_x0 = posterior_coefficients(step)
    centred = xs - q.mean
    gap = scale(from_x0, x0 - bound.x0_hat(prediction).double())
    zero = torch.zeros_like(xs)
    p = DiagonalGaussian(zero, prediction.log_var(step).double())
    return sum_per_example(p.log_prob(centred + gap) - DiagonalGaussian(zero, q.log_var).log_prob(centred))


def log_mean_weight(log_weights: Tensor) -> Tensor:
    """log of the mean weight, (B,), of log weights (M, B)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (B,) in 1..M, of log weights (M, B)."""
    return (2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)).exp()


def variance_of_log_mean(log_weights: Tensor) -> Tensor | None:
    """Variance of the log of the mean weight, (B,), of M independent log weights (M, B), by the jackknife.

    It also holds where one weight is most of the sum. None for M = 1, whose variance is not known.
    """
    M = len(log_weights)
    if M < 2:
        return None
    others = torch.stack(
        [log_mean_weight(torch.cat([log_weights[:m], log_weights[m + 1 :]])) for m in range(M)]
    )
    return (M - 1) / M * (others - others.mean(0)).square().sum(0)


def _prior_log_ratio(x0: Tensor, xt: Tensor, noisiest: NoiseLevel) -> Tensor:
    """log N(x_K; 0, I) - log q(x_K | x_0), (B,)."""
    p = DiagonalGaussian(torch.zeros_like(xt), torch.zeros_like(noisiest.logsnr))
    return sum_per_example(p.log_prob(xt) - marginal(x0, noisiest).log_prob(xt))
