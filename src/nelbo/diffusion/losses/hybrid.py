"""L_hybrid = L_simple + lambda L_vlb (Improved DDPM, Nichol & Dhariwal 2021, equation 16).

The mean is trained by L_simple alone: it is detached in L_vlb, which trains the learned variance. L_vlb is
the whole bound, hence the factor K on the term that is drawn; without it the weight would be K times smaller
than in the paper. lambda = 0.001 refers to bits per dimension, as in the paper's code.
"""

import math

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.losses.base import Loss, LossTerms, NoisyBatch, eps_mse
from nelbo.diffusion.variances import LearnedVariance, ReverseVariance


class Hybrid(Loss):
    """|eps - eps_hat|^2 + weight * K L_t in bits/dim, the mean detached in the second part.

    Args:
        weight: lambda, on the bound in bits per dimension.

    Raises:
        ValueError: when ``weight`` is not positive.
    """

    def __init__(self, weight: float = 0.001) -> None:
        if weight <= 0.0:
            raise ValueError(f"loss.weight={weight} must be positive")
        self.weight = weight

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The loss and the bound's term at the steps of ``noisy``, each (B,)."""
        term = bound.term(noisy.step, noisy.x0, prediction.detach_mean())
        bits_per_dim = term / (noisy.x0[0].numel() * math.log(2))
        loss = eps_mse(noisy, prediction) + self.weight * bound.chain.num_steps * bits_per_dim
        return LossTerms(loss=loss, bound=term.detach())

    def check_variance(self, variance: ReverseVariance) -> None:
        """Check that the variance is learned: the bound's part trains nothing else.

        Raises:
            ValueError: for a fixed variance.
        """
        if not isinstance(variance, LearnedVariance):
            raise ValueError(
                f"the loss {type(self).__name__} trains a learned variance, and {type(variance).__name__} is "
                "fixed: add variance=learned_range, or use objective=..., which sets loss, variance and "
                "timesteps together"
            )
