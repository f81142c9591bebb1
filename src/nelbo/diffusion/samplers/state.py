"""What a step of a sampler receives besides x_t, its prediction and its noise."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel


@dataclass(frozen=True)
class HistoryEntry:
    """An earlier level and its prediction.

    Attributes:
        level: noise levels of shape (B,).
        prediction: of the denoiser at that level, after clipping.
    """

    level: NoiseLevel
    prediction: Prediction


@dataclass(frozen=True)
class SamplerState:
    """The position in the sampling loop. Samplers themselves have no state.

    Attributes:
        index: number of the step, from K down to 1; step 1 ends in data.
        predict: maps (x, level) to a prediction for the given conditions, with x0_hat clipped. Every call is
            an extra network evaluation.
        history: the levels before x_t, the most recent last; at most the sampler's ``memory`` of them.
    """

    index: int
    predict: Callable[[Tensor, NoiseLevel], Prediction]
    history: tuple[HistoryEntry, ...] = ()
