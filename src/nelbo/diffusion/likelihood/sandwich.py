"""Samples of a chain with the trajectories that made them, which are exact draws of the posterior.

For z = x_{1:K} and w = p(x_0, z) / q(z | x_0), with z drawn from the posterior p(z | x_0),

    E log w = log p(x_0) + KL(p(z | x_0) || q(z | x_0)) >= log p(x_0) ,

and the variational bound, z drawn from q, is log p(x_0) - KL(q || p). With M trajectories, one of them exact,

    E log 1/M (w_exact + sum_{m<M} w_m) = log p(x_0) + KL(r || q^M) ,

where r(z_{1:M}) = 1/M sum_m p(z_m | x_0) prod_{k != m} q(z_k | x_0) has the exact draw at a random place
(Grosse et al. 2015; Sobolev and Vetrov 2019). The importance-weighted bound is log p(x_0) - KL(q^M || r).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import finite_chain
from nelbo.diffusion.gaussian import DiagonalGaussian
from nelbo.diffusion.level import sum_per_example
from nelbo.diffusion.process import forward, marginal, posterior


@dataclass(frozen=True)
class ChainSample:
    """Samples of a chain.

    Attributes:
        x0: (B, ...) draws of p(x_0).
        log_weight: (B,) float64 nats, log p(x_0, x_{1:K}) - log q(x_{1:K} | x_0) of the trajectories.
    """

    x0: Tensor
    log_weight: Tensor


def sample_chain(
    bound: VariationalBound, denoise: Denoise, noise: Callable[[], Tensor], cond: Cond | None = None
) -> ChainSample:
    """Draw from the chain whose likelihood is bounded; K network evaluations.

    This is ancestral sampling, with x_0 drawn from the decoder p(x_0 | x_1), and x0_hat clipped as in the
    bound. The log weight is accumulated with q(x_{1:K} | x_0) = q(x_1 | x_0) prod_{i=2..K} q(x_i | x_{i-1}).

    Args:
        bound: chain, decoder and clipping.
        denoise: maps (x_t, level, cond) to a prediction.
        noise: returns standard normal noise (B, ...) in the dtype of the data, K + 1 times.
        cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).

    Raises:
        ValueError: for continuous time, see :func:`finite_chain`.
    """
    chain, first = finite_chain(bound.chain), noise()
    xt = first.double()
    standard = DiagonalGaussian(torch.zeros_like(xt), xt.new_zeros(1))
    log_w = sum_per_example(standard.log_prob(xt))
    for i in range(chain.num_steps, 0, -1):
        step = chain.step(torch.full((len(xt),), i, device=xt.device))
        prediction = denoise(xt.to(first.dtype), step.t, cond)
        x0_hat = bound.x0_hat(prediction)
        if i == 1:
            mean, log_var = bound.decoder.distribution(prediction, x0_hat, step)
            x0 = bound.decoder.sample(mean, log_var, noise().double()).to(first.dtype)
            log_w = log_w - bound.reconstruction(step, x0, prediction).double()
            return ChainSample(x0, log_w - sum_per_example(marginal(x0.double(), step.t).log_prob(xt)))
        reverse = DiagonalGaussian(
            posterior(x0_hat.double(), xt, step).mean, prediction.log_var(step).double()
        )
        xs = reverse.sample(noise().double())
        log_w = log_w + sum_per_example(reverse.log_prob(xs) - forward(xs, step).log_prob(xt))
        xt = xs
    raise AssertionError("a chain has at least one step")
