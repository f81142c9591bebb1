"""Diagonal Gaussians, described by mean and log variance."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_var))).

    Attributes:
        mean: (B, ...).
        log_var: (B, 1, ..., 1) or (B, ...); float64 if it comes from a schedule.
    """

    mean: Tensor
    log_var: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, elementwise: (B, ...), in the dtype of ``mean``."""
        precision = (-self.log_var).exp().to(self.mean.dtype)
        log_var = self.log_var.to(self.mean.dtype)
        return -0.5 * (LOG_2PI + log_var + precision * (x - self.mean).square())

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + standard deviation * noise, for standard normal noise (B, ...)."""
        return self.mean + (0.5 * self.log_var).exp().to(noise.dtype) * noise


def kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) in nats, elementwise: (B, ...), in the dtype of the means.

    Written in r = log var_p - log var_q to avoid cancellation for nearly equal variances: r + expm1(-r) is
    r^2/2 + O(r^3), whereas r + exp(-r) - 1 is dominated by rounding for small r.
    """
    gap = q.mean - p.mean
    r = p.log_var - q.log_var
    spread = (r + torch.expm1(-r)).to(gap.dtype)
    precision = (-p.log_var).exp().to(gap.dtype)
    return 0.5 * (spread + precision * gap.square())
