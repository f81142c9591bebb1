"""The best fixed variance of a trained network (Analytic-DPM, Bao et al. 2022, theorem 1).

The expected KL of a step is smallest when the variance of p(x_s | x_t) is that of q(x_s | x_t) around the
mean that the network predicts:

    variance = beta-tilde + from_x0^2 MSE_t,     MSE_t = E |x_0 - x0_hat(x_t)|^2 / D

with from_x0 the weight of x_0 in the posterior mean. For the exact denoiser MSE_t is (1 - E|eps_hat|^2 / D) /
SNR_t, as in the theorem; for a trained one it includes the error of the network. MSE_t does not depend on s,
so the same moments hold for every chain.
"""

from typing import Literal

import torch
from torch import Tensor

from nelbo.diffusion.level import Step
from nelbo.diffusion.process import posterior_coefficients
from nelbo.diffusion.variances.base import ReverseVariance


class Analytic(ReverseVariance):
    """Variance beta-tilde + from_x0^2 MSE_t, from measured moments.

    Args:
        log_mse: (T,) float64, log MSE_t at t = 1..T, measured on the network.
        first_step: ``analytic``: the same formula at the step that ends in data, where beta-tilde is 0 and it
            is MSE_t of the chain's first t. That is optimal for a density, and nearly so for quantised data.
            Or ``beta``, ``beta_tilde``.

    Raises:
        ValueError: for any other ``first_step``.
    """

    first_steps = ("analytic", "beta", "beta_tilde")

    def __init__(
        self, log_mse: Tensor, first_step: Literal["analytic", "beta", "beta_tilde"] = "analytic"
    ) -> None:
        super().__init__(first_step)
        self.log_mse = log_mse

    def log_var(self, step: Step, var_output: Tensor | None) -> Tensor:
        """Log variance, (B,) float64."""
        _, from_x0 = posterior_coefficients(step)
        error = 2.0 * from_x0.log() + self.log_mse.to(step.t.t.device)[step.t.t - 1]
        measured = torch.logaddexp(step.log_beta_tilde, error)
        if self.first_step == "analytic":
            return measured
        return self.first_log_var(step).where(step.is_first, measured)
