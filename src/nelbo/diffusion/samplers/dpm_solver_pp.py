"""DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling", algorithm 2).

It solves the reverse process exactly for an x0_hat that stays as it is over a step; that is DDIM's step, and
with noise the posterior's. Second order comes from x0_hat at the level before. Taken as a straight line in
lambda = logsnr / 2, the x0_hat that the whole step should use is

    D = x0_hat_t + h / (2 h_before) (x0_hat_t - x0_hat_before)

with h = lambda_s - lambda_t and h_before = lambda_t - lambda_before. So a step is a first-order step with D
in place of x0_hat, and needs no further evaluation of the network.
"""

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step, scale
from nelbo.diffusion.process import diffuse, posterior
from nelbo.diffusion.samplers.base import Sampler
from nelbo.diffusion.samplers.clipping import Clip
from nelbo.diffusion.samplers.walk import Visit, Walk


class DPMSolverPP(Sampler):
    """The posterior's step, or the ODE's, at an x0_hat that is extrapolated from the last two levels.

    The first step has no level before it, and the step to data has no finite h: both take x0_hat as it is.

    Args:
        stochastic: False solves the probability-flow ODE, True the reverse SDE: SDE-DPM-Solver++(2M).
        lower_order_final: also take x0_hat as it is for the step to the chain's cleanest level. That step is
            the longest in lambda where timesteps are evenly spaced, and D reaches too far there.
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.
    """

    memory = 1

    def __init__(
        self,
        stochastic: bool = False,
        lower_order_final: bool = True,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(steps, clip, dynamic_clip, data_range)
        self.stochastic = stochastic
        self.is_random = stochastic
        self.lower_order_final = lower_order_final

    def step(self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, walk: Walk) -> Tensor:
        """x_s from x_t, (B, ...)."""
        if walk.past and walk.index > (2 if self.lower_order_final else 1):
            prediction = prediction.with_x0(extrapolated(walk.past[-1], prediction, step), xt, step.t)
        if self.stochastic:
            return posterior(prediction.x0_hat, xt, step).sample(noise)
        return diffuse(prediction.x0_hat, prediction.eps_hat, step.s)


def extrapolated(before: Visit, prediction: Prediction, step: Step) -> Tensor:
    """D, the x0_hat that a step of second order uses, (B, ...).

    Args:
        before: the level before t.
        prediction: at t.
        step: from t to s, which is not data.
    """
    h = step.s.logsnr - step.t.logsnr  # twice the h of lambda; the ratio is the same
    h_before = step.t.logsnr - before.level.logsnr
    x0_hat = prediction.x0_hat
    return x0_hat + scale(0.5 * h / h_before, x0_hat - before.prediction.x0_hat)
