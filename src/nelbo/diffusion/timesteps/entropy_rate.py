"""Timesteps drawn in proportion to their term of the bound.

For the exact denoiser, the integrand of the bound is the rate of the conditional entropy H(x_0 | x_t), so the
draws are uniform in entropy (entropic time, Stancevic et al. 2025, there for the steps of a sampler).
Importance sampling differs from this in two ways: its p is proportional to sqrt(E[loss^2]), which minimises
the variance, and it follows the training loss, not the bound. The two agree for ``loss=vlb`` where the
relative spread of the loss is the same at all levels.
"""

from torch import Tensor

from nelbo.diffusion.timesteps.importance import Importance


class EntropyRate(Importance):
    """p proportional to \\|E[L_t]\\|, stratified over the batch, with a uniform floor.

    The mean is over the last ``history`` terms of every step. Its absolute value is used because L_0 of
    continuous data may be negative.

    Args:
        num_steps: K, the number of steps of the chain.
        history: number of recent terms stored per step.
        floor: share of uniform draws.

    Raises:
        ValueError: as :class:`Importance`.
    """

    def size(self) -> Tensor:
        """\\|E[L_t]\\| of each step, (K,) nats."""
        return self._losses.mean(1).abs()

    def update(self, index: Tensor, loss: Tensor, bound: Tensor) -> None:
        """Record the terms ``bound`` (B,) of steps (B,), replacing the oldest."""
        super().update(index, bound, bound)
