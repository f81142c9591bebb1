"""Exact denoisers: the posterior mean E[x_0 | x_t] of data distributions that have a closed form.

They have the signature of a :class:`Denoiser` and replace a trained network where the exact answer is needed:
in tests, as oracles, and in the figures of the derivation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, scale, sum_per_example
from nelbo.diffusion.process import noise_in
from nelbo.diffusion.variances import ReverseVariance


@dataclass(frozen=True)
class GaussianMixtureDenoiser:
    """Posterior mean for data sum_k w_k N(mean_k, std^2 I).

    Given component k, E[x_0 | x_t] = mean_k + signal std^2 / var_t (x_t - signal mean_k) with
    var_t = signal^2 std^2 + noise^2, and p(k | x_t) is proportional to w_k N(x_t; signal mean_k, var_t).

    Attributes:
        means: (K, ...) component means.
        weights: (K,) component probabilities.
        std: standard deviation of every component.
        variance: of the reverse steps.
    """

    means: Tensor
    weights: Tensor
    std: float
    variance: ReverseVariance

    def __call__(self, xt: Tensor, level: NoiseLevel, cond: Cond | None = None) -> Prediction:
        """x0_hat and eps_hat, (B, ...); conditions are ignored."""
        means = self.means.to(xt)
        var_t = level.alpha_bar * self.std**2 + level.noise_scale.square()
        gain = level.signal_scale * self.std**2 / var_t
        log_p: list[Tensor] = []
        x0_hats: list[Tensor] = []
        for mean, weight in zip(means, self.weights, strict=True):
            centred = xt - scale(level.signal_scale, mean.expand_as(xt))
            log_p.append(weight.to(xt).log() - 0.5 * sum_per_example(centred.square()) / var_t)
            x0_hats.append(mean + scale(gain, centred))
        p = torch.stack(log_p).softmax(0)
        x0_hat = sum((scale(p_k, x) for p_k, x in zip(p, x0_hats, strict=True)), torch.zeros_like(xt))
        return Prediction(x0_hat=x0_hat, eps_hat=noise_in(xt, x0_hat, level), variance=self.variance)


def gaussian_denoiser(
    shape: tuple[int, ...], std: float, variance: ReverseVariance
) -> GaussianMixtureDenoiser:
    """The exact denoiser of N(0, std^2 I) data of the given shape (without the batch axis)."""
    means = torch.zeros(1, *shape, dtype=torch.float64)
    return GaussianMixtureDenoiser(means, torch.ones(1, dtype=torch.float64), std, variance)


def posterior_variance(level: NoiseLevel, std: float) -> Tensor:
    """Var(x_0 | x_t) per dimension for N(0, std^2 I) data: std^2 (1-ab) / (ab std^2 + 1 - ab), (B,)."""
    noise = level.noise_scale.square()
    return std**2 * noise / (level.alpha_bar * std**2 + noise)
