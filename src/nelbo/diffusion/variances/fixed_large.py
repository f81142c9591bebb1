"""beta: the forward step's variance, optimal for N(0, I) data (DDPM, section 3.2)."""

from torch import Tensor

from nelbo.diffusion.level import Step
from nelbo.diffusion.variances.base import ReverseVariance


class FixedLarge(ReverseVariance):
    """Variance (1 - alpha_bar_t) c of the forward step q(x_t | x_s)."""

    def log_var(self, step: Step, var_output: Tensor | None) -> Tensor:
        """Log variance, (B,) float64."""
        return self.first_log_var(step).where(step.is_first, step.log_beta)
