"""Samplers: from noise to data along a chain. The base owns the loop, a sampler writes one step."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step
from nelbo.diffusion.schedules import NoiseSchedule


class Sampler(ABC):
    """Walks a chain from its noisiest level to data.

    Args:
        steps: number of steps, evenly strided over 1..T and ending at T; all T where it is None.
        clip: (low, high) to clamp x0_hat to at every step, None to leave it.

    Raises:
        ValueError: when ``steps`` is below 1.
    """

    def __init__(self, steps: int | None = None, clip: tuple[float, float] | None = (-1.0, 1.0)) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"sampler.steps={steps}: at least 1 step is needed")
        self.steps = steps
        self.clip = None if clip is None else (clip[0], clip[1])

    @abstractmethod
    def step(self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor) -> Tensor:
        """x_s from x_t, (B, ...); at the first step of the chain, x_0.

        Args:
            xt: (B, ...).
            prediction: of the denoiser at x_t, clipped.
            step: the transition, levels of shape (B,).
            noise: (B, ...) standard normal, for samplers that use it.
        """

    def chain(self, schedule: NoiseSchedule) -> Chain:
        """The levels that this sampler visits.

        Raises:
            ValueError: when there are more steps than the schedule has.
        """
        if self.steps is None:
            return Chain(schedule)
        T = schedule.num_steps
        if self.steps > T:
            raise ValueError(f"sampler.steps={self.steps}, but the schedule has only {T} steps")
        positions = torch.linspace(T / self.steps, T, self.steps, dtype=torch.float64)
        return Chain(schedule, positions.round().long())

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        chain: Chain,
        xT: Tensor,
        noise: Callable[[int], Tensor],
        label: Tensor | None = None,
    ) -> Tensor:
        """Draw samples, (B, ...).

        Args:
            denoise: maps (x_t, level, label) to a prediction.
            chain: the levels to visit.
            xT: (B, ...) standard normal, where the walk begins.
            noise: gives the standard normal noise (B, ...) of step i in 1..K.
            label: (B,) class labels, for conditional denoisers.
        """
        x = xT
        for i in range(chain.num_steps, 0, -1):
            step = chain.step(torch.full((len(x),), i, device=x.device))
            prediction = denoise(x, step.t, label)
            if self.clip is not None:
                prediction = prediction.clip(x, step.t, *self.clip)
            x = self.step(x, prediction, step, noise(i))
        return x
