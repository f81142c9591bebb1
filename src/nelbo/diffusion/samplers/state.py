"""The walk from noise to data: what a step of a sampler may know besides x_t and its prediction."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel


@dataclass(frozen=True)
class HistoryEntry:
    """A level that the walk came by, and what was predicted there.

    Attributes:
        level: (B,).
        prediction: of the denoiser at that level, clipped.
    """

    level: NoiseLevel
    prediction: Prediction


@dataclass(frozen=True)
class SamplerState:
    """Where a walk stands. The loop makes a new one for every step, so a sampler itself remembers nothing.

    Attributes:
        index: the number of the step, from K down to 1, which ends in data.
        predict: maps (x, level) to a prediction with the labels given and x0_hat clipped. Every call is one
            more evaluation of the network.
        history: the levels before x_t, the latest last; no more than the sampler's ``memory``, and fewer at
            the start of the state.
    """

    index: int
    predict: Callable[[Tensor, NoiseLevel], Prediction]
    history: tuple[HistoryEntry, ...] = ()
