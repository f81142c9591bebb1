"""The network predicts the distribution of the data's levels.

These are the categorical reparameterization and the output prior of Gulrajani & Hashimoto 2023
("Likelihood-based diffusion language models"), with the values of quantised data in place of the embeddings
of tokens. The output is a log prior of the K levels v_k of every scalar of x_0, and Bayes' rule gives

    p(x_0 = v_k | x_t) = softmax_k(output_k - SNR/2 (x_t / signal - v_k)^2)

of which x0_hat is the mean. The likelihood N(x_t; signal v_k, noise^2) is exact, so the network has to learn
only what the other scalars say about x_0, and x0_hat is right in the limit of no noise whatever it predicts.
With an output of 0 this is the posterior of VDM's decoder (Kingma et al. 2021, equation 7).
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nelbo.diffusion.level import NoiseLevel, per_example, scale
from nelbo.diffusion.parameterizations.base import Parameterization
from nelbo.diffusion.process import noise_in

LOGITS_ON_CPU, LOGITS_ON_GPU = 2**18, 2**26  # in a block of the posterior: 1 MiB stays in a core's cache


class Categorical(Parameterization):
    """net(x_t) = log prior of the levels, K output channels for each channel of the data.

    Args:
        levels: number of levels K, 256 for 8-bit images.

    Raises:
        ValueError: for continuous data.
    """

    def __init__(self, levels: int | None) -> None:
        if levels is None:
            raise ValueError(
                "parameterization=categorical needs data with discrete levels, but this data is continuous: "
                "use parameterization=v"
            )
        self.levels = levels

    def output_channels(self, data_channels: int) -> int:
        """K for each channel of the data."""
        return self.levels * data_channels

    def check_noisiest(self, level: NoiseLevel) -> None:
        """Every level is valid: without signal, x0_hat is the mean of the prior."""

    def estimates(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """x0_hat and eps_hat of ``output`` (B, C K, ...), (B, C, ...) each, in the dtype of x_t.

        The channels of ``output`` are ordered [C][K]. x0_hat is inside of [-1, 1].
        """
        by_level = output.reshape(len(xt), xt.shape[1], self.levels, *xt.shape[2:])
        logits = by_level.movedim(2, -1).reshape(-1, self.levels)
        values = torch.linspace(-1.0, 1.0, self.levels, dtype=torch.float64, device=xt.device).to(xt.dtype)
        # without signal, any finite mean of the likelihood has the precision 0
        signal = level.signal_scale.clamp(min=torch.finfo(torch.float32).tiny ** 0.25)
        mean = scale(1.0 / signal, xt).flatten()
        precision = per_example(level.snr, xt).to(xt.dtype).expand_as(xt).flatten()
        x0_hat = posterior_mean(logits, mean, precision, values).view_as(xt)
        return x0_hat, noise_in(xt, x0_hat, level)


def posterior_mean(logits: Tensor, mean: Tensor, precision: Tensor, values: Tensor) -> Tensor:
    """Mean of softmax_k(logits_k - precision / 2 (mean - values_k)^2), (N,).

    Args:
        logits: (N, K), of any floating dtype; the result has the dtype of ``mean``.
        mean: (N,).
        precision: (N,).
        values: (K,), without gradient.
    """
    return cast(Tensor, _PosteriorMean.apply(logits, mean, precision, values))  # pyright: ignore


class _PosteriorMean(torch.autograd.Function):
    """:func:`posterior_mean` in blocks. Of (N, K) tensors it stores only p, in the dtype of the logits.

    With m the result and Cov the covariance under p, its derivatives are

        dm / dlogits_k   = p_k (v_k - m)
        dm / dmean       = precision Var(v)
        dm / dprecision  = -1/2 Cov(v, (mean - v)^2) = 1/2 E[(v - m)^2 (2 mean - v - m)]

    where the last form has no large terms that cancel.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, mean: Tensor, precision: Tensor, values: Tensor) -> Tensor:
        found = torch.empty_like(mean)
        stored = torch.empty_like(logits) if any(ctx.needs_input_grad) else None
        for part in _blocks(logits):
            exponent = (mean[part, None] - values).square_().mul_(-0.5 * precision[part, None])
            p = exponent.add_(logits[part]).softmax(-1)
            torch.mv(p, values, out=found[part])
            if stored is not None:
                stored[part] = p
        ctx.save_for_backward(stored, found, mean, precision, values)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grad_outputs
        stored, found, mean, precision, values = ctx.saved_tensors
        by_logits, by_mean = torch.empty_like(stored), torch.empty_like(mean)
        needs_precision = ctx.needs_input_grad[2]  # with a learned schedule
        by_precision = torch.empty_like(precision) if needs_precision else None
        for part in _blocks(stored):
            gap = values - found[part, None]
            slope = (gap * stored[part]).mul_(grad[part, None])
            by_logits[part] = slope
            square = slope.mul_(gap)
            by_mean[part] = precision[part] * square.sum(-1)
            if by_precision is not None:
                doubled = 2.0 * mean[part, None] - values - found[part, None]
                by_precision[part] = 0.5 * square.mul_(doubled).sum(-1)
        return by_logits, by_mean, by_precision, None


def _blocks(logits: Tensor) -> list[slice]:
    n, levels = logits.shape
    size = max(1, (LOGITS_ON_CPU if logits.device.type == "cpu" else LOGITS_ON_GPU) // levels)
    return [slice(start, start + size) for start in range(0, n, size)]
