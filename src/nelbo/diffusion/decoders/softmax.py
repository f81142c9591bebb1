"""VDM's decoder: the probability of each level given the noisy data (Kingma et al. 2021, equation 7).

    p(x_0 = v_k | z) = softmax_k(-|z / signal - v_k|^2 / (2 sigma^2)),   sigma = noise / signal

This is Bayes' rule with equal prior probabilities of the levels: p(x_0 | z) is proportional to q(z | x_0)
(section 3.3). The network is not used, so L_0 depends on the cleanest noise level only.
"""

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from nelbo.diffusion.decoders.base import QuantizedDecoder
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step, per_example, scale


class Softmax(QuantizedDecoder):
    """p(x_0 | z) proportional to q(z | x_0), over the levels of quantised data in [-1, 1].

    Args:
        levels: number of levels, 256 for 8-bit images.

    Raises:
        ValueError: for continuous data.
    """

    def __init__(self, levels: int | None) -> None:
        if levels is None:
            raise ValueError(
                "decoder=softmax needs data with discrete levels, but this data is continuous: use "
                "decoder=gaussian"
            )
        super().__init__(levels)
        self.values = [2.0 * k / (levels - 1) - 1.0 for k in range(levels)]

    def __str__(self) -> str:
        return f"softmax over {self.levels} levels"

    def distribution(self, prediction: Prediction, x0_hat: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """z / signal = x0_hat + sigma eps_hat, (B, ...), and log sigma^2, (B, 1, ..., 1)."""
        # other rows are masked, and an infinite sigma of theirs (no signal) would make gradients NaN
        log_var = (-step.t.logsnr).masked_fill(~step.is_first, 0.0)
        mean = prediction.x0_hat + scale((0.5 * log_var).exp(), prediction.eps_hat)
        return mean, per_example(log_var, x0_hat)

    def log_prob(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log probability in nats, elementwise, (B, ...), computed in float64.

        One pass for each level, and checkpoints of the sum between blocks of levels for the backward pass, so
        that memory grows with the square root of the number of levels.
        """
        z, half_precision = mean.double(), 0.5 * (-log_var.double()).exp()
        log_sum = torch.full_like(z, -torch.inf)
        block = math.isqrt(self.levels)
        for start in range(0, self.levels, block):
            values = self.values[start : start + block]
            added = checkpoint(  # pyright: ignore[reportUnknownVariableType]
                _add_levels, log_sum, z, half_precision, values, use_reentrant=False, preserve_rng_state=False
            )
            log_sum = cast(Tensor, added)
        return (-half_precision * (z - x0.double()).square() - log_sum).to(mean.dtype)

    def sample(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
        """A level by the inverse of the CDF, (B, ...) float64, for standard normal noise (B, ...) float64."""
        z, half_precision = mean.double(), 0.5 * (-log_var.double()).exp()
        log_sum = _add_levels(torch.full_like(z, -torch.inf), z, half_precision, self.values)
        uniform = 0.5 * (1.0 + torch.erf(math.sqrt(0.5) * noise))
        below, x0 = torch.zeros_like(z), torch.full_like(z, self.values[0])
        for value, following in pairwise(self.values):
            below += (-half_precision * (z - value).square() - log_sum).exp()
            x0 = x0.masked_fill(uniform > below, following)
        return x0


def _add_levels(log_sum: Tensor, z: Tensor, half_precision: Tensor, values: list[float]) -> Tensor:
    for value in values:
        log_sum = torch.logaddexp(log_sum, -half_precision * (z - value).square())
    return log_sum
