"""A control variate for the terms of the bound: the error of the exact denoiser of a Gaussian.

For data N(mean, V diag(v) V^T), the exact denoiser is linear. With a = V^T (x_0 - mean), e = V^T eps,
r = SNR_t and k = 1 / (1 + r v), its error x_0 - x0_hat is k a - sqrt(r) v k e in this basis. Its expectation
over the noise given x_0 has a closed form, and the difference from it has mean 0 for every x_0 and t:

    control = w sum_d [ r v^2 k^2 (e^2 - 1) - 2 sqrt(r) v k^2 a e ]_d

The weight w is that of |x_0 - x0_hat|^2 in L_t with the variance beta-tilde, (SNR_s - SNR_t) / 2, so that the
control is in nats; for L_0 it is SNR_1 / 2, in continuous time that of VDM's integral (Kingma et al. 2021,
equation 15). The mean is 0 for every mean, basis and v that do not depend on the noise, so a poor fit leaves
estimates unbiased. Control variates: Owen, "Monte Carlo theory, methods and examples" (2013), section 8.9.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.level import InfinitesimalStep, Step, scale, sum_per_example

FULL_DIMENSIONS = 1024  # with a basis of all dimensions; of the axes of larger data
FIT_VALUES = 2**22  # numbers in the examples that are fitted
FIT_EXAMPLES = 64  # at least


@dataclass(frozen=True)
class GaussianControl:
    """The control variate of a Gaussian.

    Attributes:
        mean: (...) of the data.
        bases: an orthogonal matrix for each axis of ``variances``; None for an axis without one.
        variances: of the data in the basis, (...) or flattened.
    """

    mean: Tensor
    bases: "tuple[Tensor | None, ...]"
    variances: Tensor

    @classmethod
    def fit(cls, x0: Tensor) -> "GaussianControl":
        """Fit mean and variances to data (N, ...).

        The basis is that of the covariance matrix if the data has at most 1024 dimensions and half as many
        as examples. Otherwise each axis has a basis of its own, that of the covariance along it, or none if
        it is longer than 1024: memory and time grow with the number of dimensions, as those of the network.
        """
        mean = x0.double().mean(0)
        centred, D = x0.double() - mean, mean.numel()
        if min(FULL_DIMENSIONS, len(x0) // 2) >= D:
            centred = centred.flatten(1)
        bases = tuple(_principal_axes(centred.movedim(axis, -1)) for axis in range(1, centred.ndim))
        variances = _rotate(centred, bases).square().mean(0)
        return cls(mean, bases, variances).to(x0.dtype)

    def __call__(self, x0: Tensor, eps: Tensor, step: Step | InfinitesimalStep) -> Tensor:
        """The control of each example at its step, (B,) float64 nats.

        Args:
            x0: (B, ...) data.
            eps: (B, ...) the noise of x_t.
            step: of shape (B,).
        """
        shape = (len(x0), *self.variances.shape)
        a, e = (_rotate(x.reshape(shape), self.bases) for x in (x0 - self.mean, eps))
        v = self.variances.expand(shape)
        k = 1.0 / (1.0 + scale(step.t.snr, v))
        spread, bias = scale((0.5 * step.t.logsnr).exp(), k * v), k * a
        return _weight(step) * sum_per_example(spread.square() * (e.square() - 1.0) - 2.0 * spread * bias * e)

    def to(self, where: torch.device | torch.dtype | str) -> "GaussianControl":
        """The same on another device or in another dtype."""
        bases = tuple(None if basis is None else basis.to(where) for basis in self.bases)
        return GaussianControl(self.mean.to(where), bases, self.variances.to(where))


def control_of(data: DataModule, split: SplitName, device: torch.device | str) -> GaussianControl:
    """The control variate that is fitted to a split, the same for every number of processes.

    Args:
        data: the data set.
        split: its name, that of the examples whose bound is estimated.
        device: of the result.
    """
    n = max(FIT_EXAMPLES, FIT_VALUES // data.spec.dims)
    return GaussianControl.fit(data.take(split, n).x0).to(device)


def _weight(step: Step | InfinitesimalStep) -> Tensor:
    """Half the weight of |x_0 - x0_hat|^2, (B,) float64."""
    snr = step.t.snr
    if isinstance(step, InfinitesimalStep):
        return 0.5 * torch.where(step.is_first, snr, step.width * step.rate * snr)
    return 0.5 * torch.where(step.is_first, snr, step.s.snr - snr)


def _principal_axes(x: Tensor) -> Tensor | None:
    """Orthogonal basis (A, A) of the last axis of ``x`` (..., A); None for a long one."""
    if x.shape[-1] > FULL_DIMENSIONS:
        return None
    rows = x.reshape(-1, x.shape[-1])
    return torch.linalg.eigh(rows.T @ rows).eigenvectors


def _rotate(x: Tensor, bases: tuple[Tensor | None, ...]) -> Tensor:
    """Coordinates of ``x`` (B, ...) in the product of the bases of its axes.

    In float64, because TF32 and autocast would round the bases, and the control would not have the mean 0.
    """
    rotated = x.double()
    for basis in bases:
        rotated = rotated.movedim(1, -1)  # each axis once, so that they end in order
        rotated = rotated if basis is None else rotated @ basis.double()
    return rotated.to(x.dtype)
