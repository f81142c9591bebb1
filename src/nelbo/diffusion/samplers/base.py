"""Samplers: from noise to data along a chain. The base owns the loop, a sampler writes one step."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, Step
from nelbo.diffusion.samplers.clipping import Clip, checked_quantile, checked_range, dynamic_threshold
from nelbo.diffusion.samplers.state import HistoryEntry, SamplerState

Watch = Callable[[Step, Tensor, Prediction], None]


class Sampler(ABC):
    """Walks a chain from its noisiest level to data.

    Every example goes its own way: nothing looks across the batch, so a sample depends on its noise and its
    label, and not on what is drawn beside it.

    Attributes:
        memory: how many levels before x_t a step looks back at.
        is_random: whether a step uses its noise; where it does not, none is drawn.

    Args:
        steps: number of steps, for whoever makes the chain (see ``Spacing.chain``); all T where it is None.
        clip: (low, high), the range that x0_hat is kept in at every step; None to leave it; "auto" for
            ``data_range``.
        dynamic_clip: quantile of |x0_hat| by which an example that is out of range is shrunk into it, see
            :func:`dynamic_threshold`; None to clamp it.
        data_range: (low, high) of the data; None where it has none, such as continuous data.

    Raises:
        ValueError: when ``steps`` is below 1, or for a ``clip`` or ``dynamic_clip`` that is none.
    """

    memory: int = 0
    is_random: bool = True

    def __init__(
        self,
        steps: int | None = None,
        clip: Clip = "auto",
        dynamic_clip: float | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"sampler.steps={steps}: at least 1 step is needed")
        self.steps = steps
        self.clip = checked_range(data_range if clip == "auto" else clip)
        self.dynamic_clip = checked_quantile(dynamic_clip, self.clip)

    @abstractmethod
    def step(
        self, xt: Tensor, prediction: Prediction, step: Step, noise: Tensor, state: SamplerState
    ) -> Tensor:
        """x_s from x_t, (B, ...); at the first step of the chain, x_0.

        Args:
            xt: (B, ...).
            prediction: of the denoiser at x_t, clipped.
            step: the transition, levels of shape (B,).
            noise: (B, ...) standard normal; zeros for a sampler that is not random.
            state: the way here and further evaluations, for samplers that use them.
        """

    def evaluations(self, chain: Chain) -> int:
        """How often the network is evaluated for one sample."""
        return chain.num_steps

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        chain: Chain,
        xT: Tensor,
        noise: Callable[[int], Tensor],
        label: Tensor | None = None,
        watch: Watch = lambda step, xt, prediction: None,
    ) -> Tensor:
        """Draw samples, (B, ...).

        Args:
            denoise: maps (x_t, level, label) to a prediction.
            chain: the levels to visit.
            xT: (B, ...) standard normal, where the walk begins.
            noise: gives the standard normal noise (B, ...) of step i in 1..K.
            label: (B,) class labels, for conditional denoisers.
            watch: is shown every step, x_t and the prediction there, before the step is taken.
        """

        def predict(x: Tensor, level: NoiseLevel) -> Prediction:
            return self._in_range(denoise(x, level, label), x, level)

        x, history = xT, deque[HistoryEntry](maxlen=self.memory)
        for i in range(chain.num_steps, 0, -1):
            step = chain.step(torch.full((len(x),), i, device=x.device))
            prediction = predict(x, step.t)
            watch(step, x, prediction)
            drawn = noise(i) if self.is_random else torch.zeros_like(x)
            x = self.step(x, prediction, step, drawn, SamplerState(i, predict, tuple(history)))
            history.append(HistoryEntry(step.t, prediction))
        return x

    def _in_range(self, prediction: Prediction, x: Tensor, level: NoiseLevel) -> Prediction:
        if self.clip is None:
            return prediction
        if self.dynamic_clip is None:
            return prediction.clip(x, level, *self.clip)
        x0_hat = dynamic_threshold(prediction.x0_hat, *self.clip, self.dynamic_clip)
        return prediction.with_x0(x0_hat, x, level)
