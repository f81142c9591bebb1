"""The variance of the reverse step p(x_s | x_t) = N(posterior mean at x0_hat, variance I).

At the chain's first step, which ends in data, the posterior variance beta-tilde is 0, and log p(x_0 | x_1)
needs a replacement. ``first_step`` chooses it:

    beta        beta_1, the variance of q(x_1 | x_0). With it and ``fixed_large`` the bound of N(0, I) data
                equals its entropy exactly.
    beta_tilde  beta-tilde_2, the posterior variance of the second step, as in Improved DDPM's code; beta_1 in
                a chain of one step.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.level import Step


class ReverseVariance(ABC):
    """Log variance of the reverse steps.

    Attributes:
        first_steps: the valid values of ``first_step``.

    Args:
        first_step: ``beta`` or ``beta_tilde``, see the module docstring.

    Raises:
        ValueError: for any other ``first_step``.
    """

    first_steps: tuple[str, ...] = ("beta", "beta_tilde")

    def __init__(self, first_step: str = "beta") -> None:
        if first_step not in self.first_steps:
            choices = ", ".join(self.first_steps)
            raise ValueError(f"variance.first_step={first_step}: expected one of {choices}")
        self.first_step = first_step

    @abstractmethod
    def log_var(self, step: Step, var_output: Tensor | None) -> Tensor:
        """Log variance of p(x_s | x_t), (B,) float64 or (B, C, ...) in the dtype of ``var_output``.

        Args:
            step: the transitions, levels of shape (B,) or ().
            var_output: (B, C, ...) last C of the network's output channels, which only a
                :class:`LearnedVariance` reads; None if there is none.
        """

    def output_channels(self, data_channels: int) -> int:
        """Number of output channels that the network needs."""
        return data_channels

    def first_log_var(self, step: Step) -> Tensor:
        """Replacement for log beta-tilde at the first step, (B,) float64."""
        return step.log_beta if self.first_step == "beta" else step.log_beta_tilde_next

    def small_log_var(self, step: Step) -> Tensor:
        """log beta-tilde, with the replacement at the first step, (B,) float64."""
        return self.first_log_var(step).where(step.is_first, step.log_beta_tilde)


class LearnedVariance(ReverseVariance):
    """A variance between two limits, at a position that the network predicts.

    The network has a second output of the shape of the data for it.
    """

    @abstractmethod
    def interpolation(self, var_output: Tensor | None) -> Tensor:
        """Position between the lower (0) and the upper limit (1), (B, C, ...).

        Args:
            var_output: (B, C, ...) last C of the network's output channels.
        """

    def output_channels(self, data_channels: int) -> int:
        """Two outputs for each data channel."""
        return 2 * data_channels
