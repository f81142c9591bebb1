"""DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling", algorithm 2).

First order solves the reverse process exactly for a constant x0_hat; this is DDIM's step, or with noise the
posterior's. Second order also uses x0_hat of the previous level. With x0_hat linear in lambda = logsnr / 2,
the value for the whole step is

    D = x0_hat_t + h / (2 h_before) (x0_hat_t - x0_hat_before)

with h = lambda_s - lambda_t and h_before = lambda_t - lambda_before. The step is the first-order step with D
in place of x0_hat, without an extra network evaluation.
"""

import math

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step, scale
from nelbo.diffusion.process import diffuse, posterior
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.clipping import Clip
from nelbo.diffusion.samplers.state import HistoryEntry, SamplerState


class DPMSolverPP(Sampler):
    """A step of the ODE or of the posterior, with x0_hat extrapolated from the last two levels.

    The first step has no previous level and the step to data no finite h: both are of first order.

    Args:
        stochastic: False solves the probability-flow ODE, True the reverse SDE: SDE-DPM-Solver++(2M).
        max_final_ratio: the step to the chain's cleanest level is of first order as well if h / h_before
            exceeds this, because D would extrapolate too far; None for never. With ``spacing=even`` the ratio
            is 3 to 5 on the linear and cosine schedules, with the other spacings below 2.5. In diffusers and
            k-diffusion only the step to data is of first order, whatever ``lower_order_final`` is.
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.

    Raises:
        ValueError: when ``max_final_ratio`` is negative.
    """

    memory = 1

    def __init__(
        self,
        stochastic: bool = False,
        max_final_ratio: float | None = 2.5,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if max_final_ratio is not None and not max_final_ratio >= 0.0:
            raise ValueError(f"sampler.max_final_ratio={max_final_ratio} must not be negative, or null")
        super().__init__(steps, clip, dynamic_clip, data_range)
        self.stochastic = stochastic
        self.is_random = stochastic
        self.max_final_ratio = math.inf if max_final_ratio is None else max_final_ratio

    def step(
        self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, state: SamplerState
    ) -> Tensor:
        """x_s from x_t, (B, ...)."""
        if state.history and state.index > 1:
            ratio = step_ratio(state.history[-1], step)
            if state.index > 2 or (ratio <= self.max_final_ratio).all():
                x0_hat = extrapolated(prediction.x0_hat, state.history[-1].prediction.x0_hat, ratio)
                prediction = prediction.with_x0(x0_hat, xt, step.t)
        if self.stochastic:
            return posterior(prediction.x0_hat, xt, step).sample(noise)
        return diffuse(prediction.x0_hat, prediction.eps_hat, step.s)


def step_ratio(before: HistoryEntry, step: Step) -> Tensor:
    """h / h_before, (B,).

    Args:
        before: the previous level.
        step: from t to s, which is not data.
    """
    # both h are twice those of lambda
    return (step.s.logsnr - step.t.logsnr) / (step.t.logsnr - before.level.logsnr)


def extrapolated(x0_hat: Tensor, x0_hat_before: Tensor, ratio: Tensor) -> Tensor:
    """D, the x0_hat of a second-order step, (B, ...)."""
    return x0_hat + scale(0.5 * ratio, x0_hat - x0_hat_before)
