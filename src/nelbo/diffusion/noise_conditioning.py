"""c_noise: what a network receives for the noise level, (B,) float32 after conversion by the denoiser."""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel

__all__ = ["LogSNRConditioning", "LogSigmaConditioning", "NoiseConditioning", "TimestepConditioning"]


class NoiseConditioning(ABC):
    """A function of the noise level for the network."""

    @abstractmethod
    def __call__(self, level: NoiseLevel) -> Tensor:
        """c_noise of levels of shape (B,), (B,)."""


class TimestepConditioning(NoiseConditioning):
    """(t + shift) * scale, as in DDPM and its successors.

    Args:
        scale: 1000 / T keeps c_noise on the scale 0..1000 for every T; 1000 in continuous time.
        shift: 0; -1 for networks trained with 0-based timesteps.
    """

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale = scale
        self.shift = shift

    def __call__(self, level: NoiseLevel) -> Tensor:
        """(t + shift) * scale, (B,)."""
        return (level.t + self.shift) * self.scale


class LogSNRConditioning(NoiseConditioning):
    """1000 (logsnr_max - logsnr) / (logsnr_max - logsnr_min) (VDM, Kingma et al. 2021, appendix B).

    The ends are constants, also where those of the schedule are learned.

    Args:
        logsnr_max: level of c_noise = 0.
        logsnr_min: level of c_noise = 1000.

    Raises:
        ValueError: for ends that are not in this order.
    """

    def __init__(self, logsnr_max: float = 13.3, logsnr_min: float = -5.0) -> None:
        if not logsnr_max > logsnr_min:
            raise ValueError(f"c_noise: logsnr_max={logsnr_max} must be above logsnr_min={logsnr_min}")
        self.logsnr_max = logsnr_max
        self.logsnr_min = logsnr_min

    def __call__(self, level: NoiseLevel) -> Tensor:
        """From 0 at the clean end to 1000 at the noisy one, (B,) float64."""
        return 1000.0 * (self.logsnr_max - level.logsnr) / (self.logsnr_max - self.logsnr_min)


class LogSigmaConditioning(NoiseConditioning):
    """factor * log(sigma) / 4 with sigma = noise / signal (EDM, Karras et al. 2022, table 1).

    Args:
        factor: 1 as published, for networks that embed it by Fourier features of their own; 250 gives
            -388..274 for sigma = 0.002..80, for networks with the sinusoidal embedding of a timestep.
    """

    def __init__(self, factor: float = 250.0) -> None:
        self.factor = factor

    def __call__(self, level: NoiseLevel) -> Tensor:
        """factor * log(sigma) / 4, (B,) float64."""
        return self.factor * -0.125 * level.logsnr
