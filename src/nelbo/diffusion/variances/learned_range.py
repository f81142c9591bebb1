"""A learned interpolation, in the logarithm, between beta-tilde and beta (Improved DDPM, equation 15)."""

from torch import Tensor

from nelbo.diffusion.level import Step, per_example
from nelbo.diffusion.variances.base import LearnedVariance


class LearnedRange(LearnedVariance):
    """log variance = v log beta + (1 - v) log beta-tilde, v = (var_output + 1) / 2 from the network.

    ``first_step`` is the lower limit at the first step. With ``beta`` both limits are beta_1 there, and
    nothing is learned at that step; Improved DDPM uses ``beta_tilde``.
    """

    def log_var(self, step: Step, var_output: Tensor | None) -> Tensor:
        """Log variance, (B, C, ...) in the dtype of ``var_output``."""
        v = self.interpolation(var_output)
        low = self.small_log_var(step)
        span = step.log_beta - low
        return per_example(low, v).to(v.dtype) + v * per_example(span, v).to(v.dtype)

    def interpolation(self, var_output: Tensor | None) -> Tensor:
        """v, (B, C, ...)."""
        assert var_output is not None, "a learned variance needs output channels of its own"
        return 0.5 * (var_output + 1.0)
