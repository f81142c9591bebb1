"""The variational bound, term by term (DDPM, Ho et al. 2020, equation 5), in nats.

    L_VLB = L_0 + sum_{i=2..K} L_i + L_T
    L_0 = -log p(x_0 | x_1)                              reconstruction
    L_i = KL(q(x_{i-1} | x_i, x_0) || p(x_{i-1} | x_i))  denoising
    L_T = KL(q(x_K | x_0) || N(0, I))                    prior

In continuous time (VDM, Kingma et al. 2021, equation 15) the sum becomes an integral over u:

    1/2 int_0^1 (-dlogsnr/du) E|eps - eps_hat|^2 du

The means of the posterior and of the reverse step have the same coefficient of x_t, so the KL depends only on
x_0 - x0_hat. This avoids the cancellation of two large, nearly equal means.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.chain import StepSequence
from nelbo.diffusion.decoders import Decoder
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.gaussian import DiagonalGaussian, kl
from nelbo.diffusion.level import (
    InfinitesimalStep,
    NoiseLevel,
    Step,
    per_example,
    scale,
    sum_per_example,
)
from nelbo.diffusion.process import diffuse, marginal, posterior_coefficients

# devices where L_0 is computed only for the rows at the first step; on others, selecting them would
# synchronise host and device
SELECTING_DEVICES = ("cpu",)

Denoise = Callable[[Tensor, NoiseLevel, Cond | None], Prediction]


@dataclass(frozen=True)
class BoundTerms:
    """All terms of the bound of each example, in nats.

    Attributes:
        prior: (B,) L_T.
        denoising: (B, K - 1), L_i for i = 2..K.
        reconstruction: (B,) L_0.
    """

    prior: Tensor
    denoising: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, (B,)."""
        return self.prior + self.denoising.sum(1) + self.reconstruction


class VariationalBound:
    """The bound of a chain, or of continuous time.

    Args:
        chain: the steps whose terms it adds up.
        decoder: likelihood at the clean end.
        clip: (low, high), the range that x0_hat is clamped to; None for no clamping. A clipped bound and an
            unclipped one are different quantities: report which one it is.
        shape: of one example, which :meth:`terms` checks; None for any shape.
    """

    def __init__(
        self,
        chain: StepSequence,
        decoder: Decoder,
        clip: tuple[float, float] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.chain = chain
        self.decoder = decoder
        self.clip = clip
        self.shape = shape

    def along(self, chain: StepSequence) -> "VariationalBound":
        """The bound of another chain of the same model."""
        return VariationalBound(chain, self.decoder, self.clip, self.shape)

    def prior(self, x0: Tensor) -> Tensor:
        """L_T of each example, (B,) nats, without the network."""
        noisiest = self.chain.level(torch.full((1,), self.chain.num_steps, device=x0.device))
        standard = DiagonalGaussian(torch.zeros_like(x0), torch.zeros_like(noisiest.logsnr))
        return sum_per_example(kl(marginal(x0, noisiest), standard))

    def x0_hat(self, prediction: Prediction) -> Tensor:
        """The predicted data, (B, ...), clamped to ``clip``."""
        return prediction.x0_hat if self.clip is None else prediction.x0_hat.clamp(*self.clip)

    def term(self, step: Step | InfinitesimalStep, x0: Tensor, prediction: Prediction) -> Tensor:
        """L_0 or L_i of each example at its step, (B,) nats.

        One draw of x_t gives an unbiased sample of the term. The sum over the K steps of the chain, or K
        times the mean over uniform random steps, is the bound minus the prior.

        Args:
            step: transitions of shape (B,).
            x0: (B, ...) data.
            prediction: of the denoiser at x_t.
        """
        x0_hat = self.x0_hat(prediction)
        to_data = step.to_data if isinstance(step, InfinitesimalStep) else step
        mean, log_var = self.decoder.distribution(prediction, x0_hat, to_data)
        is_first = per_example(step.is_first, x0)
        # Each branch gets finite numbers in the rows of the other one: a masked infinity would still make
        # gradients NaN.
        denoising = self._denoising(step, x0 - x0_hat, prediction, is_first)
        if x0.device.type in SELECTING_DEVICES:
            first = step.is_first.nonzero()[:, 0]
            reconstruction = self._reconstruction(x0[first], mean[first], log_var[first])
            return sum_per_example(denoising.index_copy(0, first, reconstruction.to(denoising.dtype)))
        reconstruction = self._reconstruction(
            x0, torch.where(is_first, mean, x0), log_var.masked_fill(~is_first, 0.0)
        )
        nats = torch.where(is_first, reconstruction, denoising)
        return sum_per_example(nats)

    def reconstruction(self, step: Step, x0: Tensor, prediction: Prediction) -> Tensor:
        """L_0 of each example, (B,) nats: :meth:`term` where all steps are first steps."""
        mean, log_var = self.decoder.distribution(prediction, self.x0_hat(prediction), step)
        return sum_per_example(self._reconstruction(x0, mean, log_var))

    def denoising(self, step: Step, x0: Tensor, prediction: Prediction) -> Tensor:
        """L_i of each example, (B,) nats: :meth:`term` where no step is a first step."""
        return sum_per_example(self._denoising(step, x0 - self.x0_hat(prediction), prediction))

    def terms(
        self,
        denoise: Denoise,
        x0: Tensor,
        noise: Callable[[int], Tensor],
        cond: Cond | None = None,
        offset: Callable[[int], Tensor] | None = None,
    ) -> BoundTerms:
        """Every term of every example: K network evaluations per example.

        Args:
            denoise: maps (x_t, level, cond) to a prediction.
            x0: (B, ...) data.
            noise: returns the standard normal noise (B, ...) of step i in 1..K.
            cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).
            offset: returns the positions (B,) float64 in [0, 1) in bin i of continuous time; uniform ones
                give unbiased terms. The middle of each bin by default.

        Raises:
            ValueError: for data of another shape, or with values outside the range of the decoder.
        """
        self.check_data(x0)
        terms: list[Tensor] = []
        for i in range(1, self.chain.num_steps + 1):
            index = torch.full((len(x0),), i, device=x0.device)
            step = self.chain.step(index, None if offset is None else offset(i))
            xt = diffuse(x0, noise(i), step.t)
            terms.append(self.term(step, x0, denoise(xt, step.t, cond)))
        stacked = torch.stack(terms, dim=1)
        return BoundTerms(prior=self.prior(x0), denoising=stacked[:, 1:], reconstruction=stacked[:, 0])

    def check_data(self, x0: Tensor) -> None:
        """Check the shape and the values of data (B, ...).

        Raises:
            ValueError: for another shape, or values outside the range of the decoder.
        """
        if self.shape is not None and tuple(x0.shape[1:]) != tuple(self.shape):
            raise ValueError(f"x0 has shape {tuple(x0.shape)}: expected a batch of shape {tuple(self.shape)}")
        self.decoder.check_data(x0)

    def _reconstruction(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        return -self.decoder.log_prob(x0, mean, log_var)

    def _denoising(
        self,
        step: Step | InfinitesimalStep,
        gap: Tensor,
        prediction: Prediction,
        masked: Tensor | None = None,
    ) -> Tensor:
        if isinstance(step, InfinitesimalStep):
            # |eps - eps_hat|^2 is SNR |x_0 - x0_hat|^2
            weight = 0.5 * step.width * step.rate * step.t.snr
            return scale(weight.masked_fill(step.is_first, 0.0), gap.square())
        log_var = prediction.log_var(step)
        _, from_x0 = posterior_coefficients(step)
        log_beta_tilde = per_example(step.log_beta_tilde, gap).to(log_var.dtype)
        if masked is not None:
            log_beta_tilde = torch.where(masked, log_var.detach(), log_beta_tilde)
        q = DiagonalGaussian(scale(from_x0, gap), log_beta_tilde)
        return kl(q, DiagonalGaussian(torch.zeros_like(gap), log_var))
