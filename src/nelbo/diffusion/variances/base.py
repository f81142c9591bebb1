"""The variance of the reverse step p(x_s | x_t) = N(posterior mean at x0_hat, variance I).

At the chain's first step, which ends in data, the posterior variance beta-tilde is 0 and log p(x_0 | x_1)
needs something else. ``first_step`` chooses it:

    beta        beta_1, the variance of q(x_1 | x_0). With it and ``fixed_large`` the bound of N(0, I)
                data equals its entropy exactly.
    beta_tilde  beta-tilde_2, the next step's posterior variance. Improved DDPM's code does this ("a
                better decoder log likelihood"); in a chain of one step there is none, so beta_1 again.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.level import Step


class ReverseVariance(ABC):
    """Log variance of the reverse steps.

    Attributes:
        channels: how many outputs the network needs per data channel: 1, or 2 when it learns the variance.
        first_steps: what ``first_step`` may be.
        needs_moments: whether it is made of errors of a trained network.
        log_mse: (T,) float64, log E |x_0 - x0_hat|^2 / D at t = 1..T, for a variance that needs moments: set
            by whoever measured them.

    Args:
        first_step: ``beta`` or ``beta_tilde``, see the module's text.

    Raises:
        ValueError: for another ``first_step``.
    """

    channels: int = 1
    first_steps: tuple[str, ...] = ("beta", "beta_tilde")
    needs_moments: bool = False
    log_mse: Tensor | None = None

    def __init__(self, first_step: str = "beta") -> None:
        if first_step not in self.first_steps:
            choices = ", ".join(self.first_steps)
            raise ValueError(f"variance.first_step={first_step}: expected one of {choices}")
        self.first_step = first_step

    @abstractmethod
    def log_var(self, step: Step, raw: Tensor | None) -> Tensor:
        """Log variance of p(x_s | x_t), broadcasting against the data.

        Args:
            step: the transition, levels of shape (B,) or ().
            raw: (B, C, ...) the network's second half of channels, where ``channels`` is 2.
        """

    def fraction(self, raw: Tensor | None) -> Tensor | None:
        """Where between its limits a learned variance lies, (B, C, ...): 0 lower, 1 upper; None if fixed."""
        return None

    def first_log_var(self, step: Step) -> Tensor:
        """What stands in for log beta-tilde at the first step, (B,) float64."""
        return step.log_beta if self.first_step == "beta" else step.log_beta_tilde_next

    def small_log_var(self, step: Step) -> Tensor:
        """log beta-tilde, with the first step's replacement, (B,) float64."""
        return self.first_log_var(step).where(step.is_first, step.log_beta_tilde)
