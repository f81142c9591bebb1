"""EDM's loss with a learned weight per level (EDM2, Karras et al. 2024, equations 14 to 16 and 21).

    E_sigma lambda(sigma) / exp(u(sigma)) |D - x_0|^2 + u(sigma),   ln sigma ~ N(P_mean, P_std^2)

For each level the minimum over u is the logarithm of the loss there, so every level contributes the same to
the gradient of the network. u is a linear function of Fourier features of c_noise = ln(sigma) / 4.
"""

import math

import torch
from torch import Tensor, nn

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import LossTerms, NoisyBatch, bound_term, eps_mse, logsnr_change
from nelbo.diffusion.losses.edm import EDMLoss


class Uncertainty(EDMLoss, nn.Module):
    """EDM's loss, divided at every level by a learned estimate of it.

    Unlike in EDM2, the weights of u are not normalised and start at 0, where the loss is EDM's. The
    parameters are trained with those of the network. The bound does not depend on them.

    Args:
        mean: P_mean, of ln sigma.
        std: P_std, of ln sigma.
        sigma_data: standard deviation of the data.
        features: number of Fourier features.

    Raises:
        ValueError: when ``std``, ``sigma_data`` or ``features`` is not above 0.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(
        self, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5, features: int = 128
    ) -> None:
        if features < 1:
            raise ValueError(f"loss.features={features} must be above 0")
        nn.Module.__init__(self)
        EDMLoss.__init__(self, mean, std, sigma_data)
        generator = torch.Generator().manual_seed(0)  # leaves the initial weights of the network as they are
        self.register_buffer("frequencies", 2.0 * math.pi * torch.randn(features, generator=generator))
        self.register_buffer("phases", 2.0 * math.pi * torch.rand(features, generator=generator))
        self.weights = nn.Parameter(torch.zeros(features))

    def log_loss(self, level: NoiseLevel) -> Tensor:
        """u, the learned logarithm of the loss per dimension, (B,) float32."""
        c_noise = (-0.125 * level.logsnr).to(self.weights.dtype).unsqueeze(-1)
        features = math.sqrt(2.0) * torch.cos(c_noise * self.frequencies + self.phases)
        return (features * self.weights).sum(-1) / math.sqrt(len(self.weights))  # float32 in autocast as well

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The loss and the bound's term at the steps of ``noisy``, each (B,)."""
        step, error = noisy.step, eps_mse(noisy, prediction)
        u = self.log_loss(step.t)
        density = bound.chain.num_steps * logsnr_change(step) * self.density(step.t)
        scaled = self.eps_weight(step.t).to(error.dtype) * error * (-u).exp()
        return LossTerms(
            loss=density.to(error.dtype) * (scaled + u), bound=bound_term(noisy, prediction, bound)
        )
