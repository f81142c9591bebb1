"""beta-tilde: the posterior's variance, optimal for data at a single point (DDPM, section 3.2)."""

from torch import Tensor

from nelbo.diffusion.level import Step
from nelbo.diffusion.variances.base import ReverseVariance


class FixedSmall(ReverseVariance):
    """Variance (1 - alpha_bar_s) c of the posterior q(x_s | x_t, x_0)."""

    def log_var(self, step: Step, var_output: Tensor | None) -> Tensor:
        """Log variance, (B,) float64."""
        return self.small_log_var(step)
