"""The probability of a quantisation bin (DDPM, Ho et al. 2020, equation 13).

    P(k) = Phi((x + h - mean) / sigma) - Phi((x - h - mean) / sigma),   h = half a bin,

where the outermost bins extend to infinity, so the probabilities of all levels add up to 1.
"""

import math
from typing import cast

import torch
from torch import Tensor

from nelbo.diffusion.decoders.base import QuantizedDecoder
from nelbo.diffusion.gaussian import DiagonalGaussian

CDFS = ("exact", "tanh")
CUBIC = 0.044715  # of the approximation of the normal CDF by tanh


class DiscretizedGaussian(QuantizedDecoder):
    """A Gaussian integrated over the bins of quantised data in [-1, 1].

    Args:
        levels: number of levels, 256 for 8-bit images.
        cdf: ``exact``, or ``tanh`` for the approximation in the code of DDPM and Improved DDPM, which also
            clamps probabilities at 1e-12. It is not a bound; use it to compare with published numbers.

    Raises:
        ValueError: for continuous data, or an unknown ``cdf``.
    """

    def __init__(self, levels: int | None, cdf: str = "exact") -> None:
        if levels is None:
            raise ValueError(
                "decoder=discretized_gaussian needs data with discrete levels, but this data is "
                "continuous: use decoder=gaussian"
            )
        if cdf not in CDFS:
            raise ValueError(f"decoder.cdf={cdf}: expected one of {', '.join(CDFS)}")
        super().__init__(levels)
        self.cdf = cdf

    def __str__(self) -> str:
        return f"discretized Gaussian, {self.levels} levels, {self.cdf} CDF"

    def log_prob(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log probability in nats, elementwise, (B, ...), in the dtype of ``mean``.

        Computed in float64: in float32 the difference of two neighbouring CDFs has three digits when a bin is
        a thousandth of sigma. ``tanh`` is computed in the dtype of ``mean``, as published.
        """
        dtype = mean.dtype if self.cdf == "tanh" else torch.float64
        precision = (-0.5 * log_var).to(dtype).exp()
        x0 = x0.to(dtype)
        if self.cdf == "exact":
            # round to the levels exactly: float32 x0 would make neighbouring bins overlap for small sigma
            bin_width = 2.0 * self.half_bin
            x0 = bin_width * ((x0 + 1.0) / bin_width).round() - 1.0
        centred = x0 - mean.to(dtype)
        lower = (centred - self.half_bin) * precision
        upper = (centred + self.half_bin) * precision
        is_lowest = x0 < -1.0 + self.half_bin
        is_highest = x0 > 1.0 - self.half_bin
        log_mass = _log_mass_tanh if self.cdf == "tanh" else _log_mass
        return log_mass(lower, upper, is_lowest, is_highest).to(mean.dtype)

    def sample(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
        """The level of a draw of the Gaussian, (B, ...) float64, for standard normal noise (B, ...)."""
        if self.cdf == "tanh":
            noise = _tanh_quantile(noise)
        x = DiagonalGaussian(mean.double(), log_var.double()).sample(noise)
        bin_width = 2.0 * self.half_bin
        return bin_width * ((x + 1.0) / bin_width).round().clamp(0, self.levels - 1) - 1.0


def _log_mass(lower: Tensor, upper: Tensor, is_lowest: Tensor, is_highest: Tensor) -> Tensor:
    # Phi(upper) - Phi(lower) = Phi(-lower) - Phi(-upper): right of the mean the mirrored form is in the lower
    # tail, where log_ndtr has full relative precision
    mirrored = lower + upper > 0.0
    a = torch.where(mirrored, -upper, lower)
    b = torch.where(mirrored, -lower, upper)
    log_a, log_b = _log_ndtr(a), _log_ndtr(b)
    inner = log_b + _log1mexp(log_a - log_b)
    inner = torch.where(is_lowest, _log_ndtr(upper), inner)
    return torch.where(is_highest, _log_ndtr(-lower), inner)


def _log_ndtr(x: Tensor) -> Tensor:
    """log Phi(x), with a type annotation."""
    return cast(Tensor, torch.special.log_ndtr(x))  # pyright: ignore


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 without cancellation (Maechler 2012)."""
    near_zero = x > -math.log(2.0)
    # each branch gets finite arguments in the rows of the other: a masked inf would make gradients NaN
    by_expm1 = torch.log(-torch.expm1(x.where(near_zero, -torch.ones_like(x))))
    by_log1p = torch.log1p(-torch.exp(x.where(~near_zero, -torch.ones_like(x))))
    return torch.where(near_zero, by_expm1, by_log1p)


def _log_mass_tanh(lower: Tensor, upper: Tensor, is_lowest: Tensor, is_highest: Tensor) -> Tensor:
    cdf_lower, cdf_upper = _tanh_cdf(lower), _tanh_cdf(upper)
    mass = torch.where(is_lowest, cdf_upper, torch.where(is_highest, 1.0 - cdf_lower, cdf_upper - cdf_lower))
    return mass.clamp(min=1e-12).log()


def _tanh_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + CUBIC * x.pow(3))))


def _tanh_quantile(normal: Tensor) -> Tensor:
    """Draws of the distribution with the CDF :func:`_tanh_cdf`, from standard normal ones: a cubic's root."""
    z = torch.atanh(torch.erf(math.sqrt(0.5) * normal)) / math.sqrt(2.0 / math.pi)
    return 2.0 / math.sqrt(3.0 * CUBIC) * torch.sinh(torch.asinh(1.5 * z * math.sqrt(3.0 * CUBIC)) / 3.0)
