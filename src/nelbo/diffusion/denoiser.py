"""The denoiser combines a network, a parameterization and a variance into a function of (x_t, level)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nelbo.cond import Cond
from nelbo.diffusion.level import NoiseLevel, Step, per_example, scale
from nelbo.diffusion.noise_conditioning import NoiseConditioning, TimestepConditioning
from nelbo.diffusion.parameterizations import Parameterization
from nelbo.diffusion.process import noise_in
from nelbo.diffusion.variances import LearnedVariance, ReverseVariance


@dataclass(frozen=True)
class Prediction:
    """The output of a denoiser at x_t: mean and variance of every reverse step from it.

    Attributes:
        x0_hat: (B, ...) predicted data.
        eps_hat: (B, ...) predicted noise, x_t = signal x0_hat + noise eps_hat.
        variance: of the reverse steps.
        var_output: (B, ...) the network's output for the variance; None if it has none.
    """

    x0_hat: Tensor
    eps_hat: Tensor
    variance: ReverseVariance
    var_output: Tensor | None = None

    def log_var(self, step: Step) -> Tensor:
        """Log variance of p(x_s | x_t), (B, 1, ..., 1) or (B, ...), broadcast against ``x0_hat``."""
        return per_example(self.variance.log_var(step, self.var_output), self.x0_hat)

    @property
    def interpolation(self) -> Tensor | None:
        """Position of a learned variance between its limits 0 and 1, (B, ...); None for a fixed variance."""
        return (
            self.variance.interpolation(self.var_output)
            if isinstance(self.variance, LearnedVariance)
            else None
        )

    def detach_mean(self) -> "Prediction":
        """The same prediction with gradients in the variance only (Improved DDPM, section 3.1)."""
        return replace(self, x0_hat=self.x0_hat.detach(), eps_hat=self.eps_hat.detach())

    def with_x0(self, x0_hat: Tensor, xt: Tensor, level: NoiseLevel) -> "Prediction":
        """The prediction with another x0_hat (B, ...), and eps_hat to match at x_t."""
        return replace(self, x0_hat=x0_hat, eps_hat=noise_in(xt, x0_hat, level))

    def clip(self, xt: Tensor, level: NoiseLevel, low: float, high: float) -> "Prediction":
        """The prediction with x0_hat (B, ...) clamped to [low, high], and eps_hat to match."""
        return self.with_x0(self.x0_hat.clamp(low, high), xt, level)


def output_channels(parameterization: Parameterization, variance: ReverseVariance, data_channels: int) -> int:
    """Number of output channels of a network: those of the prediction, then those of a learned variance."""
    of_variance = variance.output_channels(data_channels) - data_channels
    return parameterization.output_channels(data_channels) + of_variance


class Denoiser(nn.Module):
    """Turn a network's output into a :class:`Prediction`.

    The network is called as ``network(c_in x_t, c, cond)`` with c = c_noise(level), (B,) float32.

    Args:
        network: maps (B, C, ...), (B,), cond to (B, :func:`output_channels`, ...).
        parameterization: the meaning of the first channels of the output.
        variance: of the reverse steps. A learned variance reads the last C of the output's channels; a
            fixed one ignores them, so it can replace the one that the network was trained with.
        c_noise: what the network receives for the noise level.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization,
        variance: ReverseVariance,
        c_noise: NoiseConditioning | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.variance = variance
        self.c_noise = TimestepConditioning() if c_noise is None else c_noise

    def forward(self, xt: Tensor, level: NoiseLevel, cond: Cond | None = None) -> Prediction:
        """Predict x_0, the noise and the variance, (B, ...) each.

        Args:
            xt: (B, ...).
            level: levels of shape (B,).
            cond: of conditional networks: (B,) int64 class labels, or a mapping of tensors (B, ...).
        """
        c = self.c_noise(level).to(torch.float32)
        c_in = self.parameterization.c_in(level)
        output = self.network(xt if c_in is None else scale(c_in, xt), c, cond)
        channels = self.parameterization.output_channels(xt.shape[1])
        var_output = output[:, channels:].to(xt.dtype) if output.shape[1] > channels else None
        x0_hat, eps_hat = self.parameterization.estimates(output[:, :channels], xt, level)
        return Prediction(
            x0_hat=x0_hat,
            eps_hat=eps_hat,
            variance=self.variance,
            var_output=var_output,
        )
