"""Dequantization: how the density at the cleanest level gives the probability of data.

A dequantisation draws x_1, a point at the cleanest level, and gives a log weight such that

    log P(x_0) >= E [log p(x_1) + log weight],

with equality in the limit of many draws, averaged as weights (importance-weighted dequantisation).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.level import Step, scale, sum_per_example
from nelbo.diffusion.process import diffuse, marginal

__all__ = ["DecoderDequantization", "Dequantization", "NoDequantization", "UniformDequantization"]

Reconstruction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CleanPoint:
    """Points at the cleanest level.

    Attributes:
        x: (B, ...) signal x_0 + noise eps.
        log_weight: (B,) float64, nats.
    """

    x: Tensor
    log_weight: Tensor


class Dequantization(ABC):
    """Draws points at the cleanest level for data."""

    @abstractmethod
    def draw(self, x0: Tensor, step: Step, noise: Tensor, reconstruction: Reconstruction) -> CleanPoint:
        """One point for each example.

        Args:
            x0: (B, ...) data.
            step: from the cleanest level to data, levels of shape (B,).
            noise: (B, ...) standard normal.
            reconstruction: maps x_1 (B, ...) to L_0 = -log p(x_0 | x_1), (B,) nats.
        """


class NoDequantization(Dequantization):
    """x_1 = signal x_0: the density of continuous data, that of x_1 / signal."""

    def __str__(self) -> str:
        return "none"

    def draw(self, x0: Tensor, step: Step, noise: Tensor, reconstruction: Reconstruction) -> CleanPoint:
        """The data itself; the log weight is log |dx_1/dx_0|."""
        return CleanPoint(scale(step.t.signal_scale, x0), 0.5 * x0[0].numel() * step.t.log_signal_var)


class UniformDequantization(Dequantization):
    """Uniform noise in the bin of quantised data (Theis et al. 2016); that of published ODE likelihoods.

    The mass of the model beyond the outermost bins is lost. It is large if the cleanest level is as noisy as
    half a bin.

    Args:
        levels: number of levels of the data.

    Raises:
        ValueError: for continuous data.
    """

    def __init__(self, levels: int | None) -> None:
        if levels is None:
            raise ValueError(
                "dequantization=uniform is for quantised data, and this data is continuous: use "
                "dequantization=null"
            )
        self.half_bin = 1.0 / (levels - 1)

    def __str__(self) -> str:
        return "uniform"

    def draw(self, x0: Tensor, step: Step, noise: Tensor, reconstruction: Reconstruction) -> CleanPoint:
        """A uniform point of the bin; the log weight is the log of its volume, in x_1."""
        uniform = torch.erf(math.sqrt(0.5) * noise)  # on (-1, 1)
        log_width = math.log(2.0 * self.half_bin) + 0.5 * step.t.log_signal_var
        return CleanPoint(scale(step.t.signal_scale, x0 + self.half_bin * uniform), x0[0].numel() * log_width)


class DecoderDequantization(Dequantization):
    """x_1 ~ q(x_1 | x_0), and the decoder p(x_0 | x_1) of the bound.

    The log weight is log p(x_0 | x_1) - log q(x_1 | x_0), so the ODE replaces the denoising terms and the
    prior of the bound, and L_0 is the same. It is a variational dequantisation (Ho et al. 2019) by the noise
    that the network was trained with, and is also defined for continuous data.
    """

    def __str__(self) -> str:
        return "decoder"

    def draw(self, x0: Tensor, step: Step, noise: Tensor, reconstruction: Reconstruction) -> CleanPoint:
        """A draw of q(x_1 | x_0); one network evaluation."""
        x = diffuse(x0, noise, step.t)
        clean = x0.double()
        log_q = marginal(clean, step.t).log_prob(diffuse(clean, noise.double(), step.t))
        return CleanPoint(x, -reconstruction(x).double() - sum_per_example(log_q))
