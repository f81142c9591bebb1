"""EDM's stochastic sampler (Karras et al. 2022, algorithm 2): Heun's method with churn.

Before a step from sigma, noise takes x_t to the level sigma_hat = sigma (1 + gamma), where
gamma = min(S_churn / K, sqrt(2) - 1), and Heun's step starts there. Without churn it is Heun's method.

The published levels are the evenly spaced ones of ``schedule=edm`` in continuous time, and those of
``spacing=karras`` on any schedule in continuous time that runs from sigma = 0.002 to 80.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.level import NoiseLevel, Step, scale
from nelbo.diffusion.samplers.clipping import Clip
from nelbo.diffusion.samplers.heun import Heun, sigma
from nelbo.diffusion.schedules import NoiseSchedule


class EDMSampler(Heun):
    """Heun's step from a noisier level than x_t, for models in continuous time.

    Args:
        churn: S_churn, amount of noise added over all steps; 0 for none.
        churn_min: S_min, the lowest noise / signal from which a step adds noise.
        churn_max: S_max, the highest.
        noise_scale: S_noise, factor of the added noise.
        sigma_max: see :class:`Heun`.
        steps: see :class:`Sampler`.
        clip: see :class:`Sampler`.
        dynamic_clip: see :class:`Sampler`.
        data_range: see :class:`Sampler`.

    Raises:
        ValueError: for a negative argument, or ``churn_min`` above ``churn_max``.
    """

    def __init__(
        self,
        churn: float = 0.0,
        churn_min: float = 0.05,
        churn_max: float = 50.0,
        noise_scale: float = 1.003,
        sigma_max: float | None = 80.0,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if not churn >= 0.0:
            raise ValueError(f"sampler.churn={churn} must not be negative")
        if not 0.0 <= churn_min <= churn_max:
            raise ValueError(f"sampler: 0 <= churn_min={churn_min} <= churn_max={churn_max} must hold")
        if not noise_scale >= 0.0:
            raise ValueError(f"sampler.noise_scale={noise_scale} must not be negative")
        super().__init__(sigma_max, steps, clip, dynamic_clip, data_range)
        self.churn = churn
        self.churn_min = churn_min
        self.churn_max = churn_max
        self.noise_scale = noise_scale
        self.is_random = churn > 0.0

    def perturb(self, xt: Tensor, step: Step, noise: Tensor, chain: Chain) -> tuple[Tensor, Step]:
        """x_t with added noise, (B, ...), and the step from its level."""
        before = sigma(step.t)
        gamma = min(self.churn / chain.num_steps, math.sqrt(2.0) - 1.0)
        churned = (before >= self.churn_min) & (before <= self.churn_max)
        if gamma == 0.0 or not churned.any():
            return xt, step
        after = torch.where(churned, (1.0 + gamma) * before, before)
        logsnr = -2.0 * after.log()
        level = NoiseLevel(chain.schedule.at_logsnr(logsnr), logsnr)
        added = self.noise_scale * (after.square() - before.square()).clamp(min=0.0).sqrt()
        # in y = x / signal the added noise has this standard deviation
        x = scale(level.signal_scale / step.t.signal_scale, xt) + scale(level.signal_scale * added, noise)
        return x, replace(step, t=level)

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Check that churn stays at levels that the network is trained at.

        Raises:
            ValueError: for churn with timesteps, or beyond the noisy end of the schedule.
        """
        if self.churn == 0.0:
            return
        if schedule.num_steps is not None:
            raise ValueError(
                f"sampler.churn={self.churn:g} evaluates the network between timesteps, at which it is not "
                "trained: use sampler.churn=0, or a model with schedule.num_steps=null"
            )
        end = sigma(schedule.level(torch.ones((), dtype=torch.float64))).item()
        if math.sqrt(2.0) * min(self.churn_max, end) > end:
            raise ValueError(
                f"sampler.churn={self.churn:g} raises noise / signal up to sqrt(2) times, beyond the "
                f"{end:.4g} of the schedule's noisy end: add sampler.churn_max={0.7 * end:.3g} or lower (now "
                f"{self.churn_max:g})"
            )
