"""Noise levels, the coordinate of a diffusion process.

A noise level is given by its log signal-to-noise ratio, ``lam = log(alpha_bar / (1 - alpha_bar))``;
everything else is a function of it (VDM, Kingma et al. 2021, section 3.1):

    alpha_bar    = sigmoid(lam)             signal_scale = sqrt(alpha_bar)
    1 - alpha_bar = sigmoid(-lam)           noise_scale  = sqrt(1 - alpha_bar)

Clean data is the level ``lam = +inf``. Coefficients are computed in float64 on (B,) vectors with logsigmoid
and expm1, never as ``log(1 - alpha_bar)``. Images keep their dtype; :func:`scale` multiplies them by
coefficients.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class NoiseLevel:
    """Noise levels of a batch.

    Attributes:
        t: (B,) or (), the timestep 1..T, int64, with 0 for data; in continuous time u in [0, 1], float64.
        logsnr: (B,) or (), float64, log signal-to-noise ratio; +inf is data.
    """

    t: Tensor
    logsnr: Tensor

    @property
    def alpha_bar(self) -> Tensor:
        """Share of the variance that is signal, prod(1 - beta_i), shape of ``logsnr``."""
        return self.logsnr.sigmoid()

    @property
    def log_signal_var(self) -> Tensor:
        """log(alpha_bar), shape of ``logsnr``."""
        return F.logsigmoid(self.logsnr)

    @property
    def log_noise_var(self) -> Tensor:
        """log(1 - alpha_bar), shape of ``logsnr``; -inf for data."""
        return F.logsigmoid(-self.logsnr)

    @property
    def signal_scale(self) -> Tensor:
        """sqrt(alpha_bar), shape of ``logsnr``."""
        return (0.5 * self.log_signal_var).exp()

    @property
    def noise_scale(self) -> Tensor:
        """sqrt(1 - alpha_bar), shape of ``logsnr``."""
        return (0.5 * self.log_noise_var).exp()

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), shape of ``logsnr``."""
        return self.logsnr.exp()


@dataclass(frozen=True)
class Step:
    """One transition of a chain, from the noisier level t to the cleaner level s.

    Attributes:
        s: the cleaner level; data (logsnr +inf) for the first step of a chain.
        t: the noisier level.
        next: the next noisier level of the chain; t itself for the chain's last step. Needed by variances
            that use the second step's value for the first (see ``ReverseVariance``).
    """

    s: NoiseLevel
    t: NoiseLevel
    next: NoiseLevel

    @property
    def is_first(self) -> Tensor:
        """(B,) bool: whether the step ends in data, so that its term is L_0."""
        return self.s.logsnr.isposinf()

    @property
    def step_noise_fraction(self) -> Tensor:
        """c = 1 - SNR_t / SNR_s, (B,): the fraction of the noise at t that this step adds."""
        return step_noise_fraction(self.s, self.t)

    @property
    def log_beta(self) -> Tensor:
        """Log variance of q(x_t | x_s), (B,): beta_t for consecutive levels."""
        return self.t.log_noise_var + self.step_noise_fraction.log()

    @property
    def log_beta_tilde(self) -> Tensor:
        """Log variance of the posterior q(x_s | x_t, x_0), (B,); -inf for the first step.

        Source: DDPM (Ho et al. 2020), equation 7.
        """
        return self.s.log_noise_var + self.step_noise_fraction.log()

    @property
    def log_beta_tilde_next(self) -> Tensor:
        """Log posterior variance of the next noisier step, (B,); log beta for the last step."""
        follows = self.next.logsnr < self.t.logsnr
        share = step_noise_fraction(self.t, self.next).where(follows, torch.ones_like(self.t.logsnr))
        return (self.t.log_noise_var + share.log()).where(follows, self.log_beta)


@dataclass(frozen=True)
class InfinitesimalStep:
    """A point of continuous time, T = infinity, which stands for a bin of u; or the step from u = 0 to data.

    The term of the bound of a bin is width / 2 (-dlogsnr/du) |eps - eps_hat|^2 (VDM, Kingma et al. 2021,
    equation 15). It depends on the level t alone: there is no reverse step that could be drawn.

    Attributes:
        t: the level.
        is_first: (B,) bool: whether it is the step from u = 0 to data, so that its term is L_0.
        rate: (B,) float64, -dlogsnr/du at t.
        width: of the bin, in u.
        interior: see :class:`CurvePoint`.
    """

    t: NoiseLevel
    is_first: Tensor
    rate: Tensor
    width: float
    interior: tuple[Tensor, ...] = ()

    @property
    def to_data(self) -> Step:
        """The step from t to data, which rows with ``is_first`` are."""
        return Step(s=data_level(self.t), t=self.t, next=self.t)


def step_noise_fraction(s: NoiseLevel, t: NoiseLevel) -> Tensor:
    """c = 1 - SNR_t / SNR_s for s cleaner than t, (B,) float64; 1 when s is data."""
    return -torch.expm1(t.logsnr - s.logsnr)


def data_level(like: NoiseLevel) -> NoiseLevel:
    """The level of clean data (t = 0, logsnr = +inf), shaped like ``like``."""
    return NoiseLevel(torch.zeros_like(like.t), torch.full_like(like.logsnr, math.inf))


def per_example(coefficient: Tensor, like: Tensor) -> Tensor:
    """View (B,) coefficients as (B, 1, ..., 1), so that they broadcast against ``like`` (B, ...).

    The dtype is kept. Scalars () and tensors with as many axes as ``like`` are returned unchanged.
    """
    if coefficient.ndim in (0, like.ndim):
        return coefficient
    return coefficient.reshape(-1, *(1,) * (like.ndim - 1))


def scale(coefficient: Tensor, image: Tensor) -> Tensor:
    """coefficient * image in the dtype of the image, for (B,) or () float64 coefficients."""
    return per_example(coefficient, image).to(image.dtype) * image


def mean_per_example(x: Tensor) -> Tensor:
    """Mean over all axes but the first: (B, ...) -> (B,)."""
    return x.flatten(1).mean(1)


def sum_per_example(x: Tensor) -> Tensor:
    """Sum over all axes but the first: (B, ...) -> (B,)."""
    return x.flatten(1).sum(1)
