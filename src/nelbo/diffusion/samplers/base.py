"""Samplers: from noise to data along a chain. The base class has the loop, a subclass computes one step."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain, finite_chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, Step
from nelbo.diffusion.samplers.clipping import Clip, checked_quantile, checked_range, dynamic_threshold
from nelbo.diffusion.samplers.state import HistoryEntry, SamplerState
from nelbo.diffusion.schedules import NoiseSchedule

Watch = Callable[[Step, Tensor, Prediction], None]


class Sampler(ABC):
    """Steps along a chain from its noisiest level to data.

    Examples are independent: a sample depends on its noise and its condition, not on the rest of the batch.

    Attributes:
        memory: length of the history that a step uses.
        is_random: whether steps add noise; if not, none is drawn.

    Args:
        steps: number of steps of the chain (see ``Spacing.chain``); None for all T.
        clip: (low, high), the range of x0_hat at every step; None for no clipping; "auto" for ``data_range``.
        dynamic_clip: quantile of |x0_hat| for dynamic thresholding, see :func:`dynamic_threshold`; None to
            clamp.
        data_range: (low, high) of the data; None for data without a range, such as continuous data.

    Raises:
        ValueError: for ``steps`` below 1, or an invalid ``clip`` or ``dynamic_clip``.
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
        """x_s from x_t, (B, ...); x_0 at the first step of the chain.

        Args:
            xt: (B, ...).
            prediction: of the denoiser at x_t, clipped.
            step: the transition, levels of shape (B,).
            noise: (B, ...) standard normal; zeros for a sampler that is not random.
            state: history, and a function for further evaluations of the denoiser.
        """

    def perturb(self, xt: Tensor, step: Step, noise: Tensor, chain: Chain) -> tuple[Tensor, Step]:
        """x_t (B, ...) and its step before the prediction; a sampler may move them to a noisier level.

        Args:
            xt: (B, ...).
            step: the transition, levels of shape (B,).
            noise: (B, ...) that :meth:`step` receives as well.
            chain: the levels of the steps.
        """
        return xt, step

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Check that the network is trained at all levels that the sampler evaluates it at.

        Raises:
            ValueError: for a schedule that the sampler cannot be used with.
        """
        return

    def evaluations(self, chain: Chain) -> int:
        """Number of network evaluations per sample."""
        return chain.num_steps

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        chain: Chain,
        xT: Tensor,
        noise: Callable[[int], Tensor],
        cond: Cond | None = None,
        watch: Watch = lambda step, xt, prediction: None,
    ) -> Tensor:
        """Draw samples, (B, ...).

        Args:
            denoise: maps (x_t, level, cond) to a prediction.
            chain: the levels of the steps.
            xT: (B, ...) standard normal, the initial value.
            noise: returns the standard normal noise (B, ...) of step i in 1..K.
            cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).
            watch: called before every step with the step, x_t and the prediction.

        Raises:
            ValueError: for continuous time, see :func:`finite_chain`.
        """
        finite_chain(chain)

        def predict(x: Tensor, level: NoiseLevel) -> Prediction:
            return self._in_range(denoise(x, level, cond), x, level)

        x, history = xT, deque[HistoryEntry](maxlen=self.memory)
        for i in range(chain.num_steps, 0, -1):
            step = chain.step(torch.full((len(x),), i, device=x.device))
            drawn = noise(i) if self.is_random else torch.zeros_like(x)
            x, step = self.perturb(x, step, drawn, chain)
            prediction = predict(x, step.t)
            watch(step, x, prediction)
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
