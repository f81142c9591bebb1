"""Training losses at one noise level.

Every loss also returns the bound's term at the same step, computed from the same prediction, so every
training run can report its bound without extra network evaluations.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import InfinitesimalStep, NoiseLevel, Step, mean_per_example
from nelbo.diffusion.schedules import LearnedSchedule, NoiseSchedule
from nelbo.diffusion.variances import LearnedVariance, ReverseVariance


@dataclass(frozen=True)
class NoisyBatch:
    """Data, noise and one step of the chain for each example.

    Attributes:
        x0: (B, ...) data.
        eps: (B, ...) standard normal noise in x_t.
        step: the transitions, levels of shape (B,).
        weight: (B,) importance weights of the steps, by which the losses are multiplied afterwards; 1 for
            uniform steps.
    """

    x0: Tensor
    eps: Tensor
    step: Step | InfinitesimalStep
    weight: Tensor | float = 1.0


@dataclass(frozen=True)
class LossTerms:
    """The loss and the bound's term of each example.

    Attributes:
        loss: (B,) the loss, per dimension.
        bound: (B,) L_0 or L_t in nats, without gradient.
    """

    loss: Tensor
    bound: Tensor


class Loss(ABC):
    """A per-example training loss."""

    @abstractmethod
    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The loss and the bound's term at the steps of ``noisy``, each (B,)."""

    def check_variance(self, variance: ReverseVariance) -> None:
        """Check that the loss trains every output of the network.

        A loss through which a learned variance receives gradients overrides this.

        Raises:
            ValueError: for a variance that this loss cannot be combined with.
        """
        if isinstance(variance, LearnedVariance):
            raise ValueError(
                f"the loss {type(self).__name__} does not train the variance {type(variance).__name__}: add "
                "variance=fixed_large, or use objective=..., which sets loss, variance and timesteps together"
            )

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Check that the loss trains the schedule, if that is learned.

        Raises:
            ValueError: for a learned schedule, of which only the bound is an objective.
        """
        if isinstance(schedule, LearnedSchedule):
            raise ValueError(
                f"the loss {type(self).__name__} does not train the schedule {type(schedule).__name__}: use "
                "loss=vlb, or a schedule without parameters such as schedule=linear_logsnr"
            )


class WeightedMSE(Loss):
    """E weight(level) |eps - eps_hat|^2, the mean over dimensions.

    Whatever the network predicts, regression losses differ only in this weight (Kingma & Gao 2023). A weight
    w on the error of eps_hat is w SNR on that of x0_hat, and w SNR / (SNR + 1) on that of v.
    """

    @abstractmethod
    def weight(self, level: NoiseLevel) -> Tensor:
        """Weight of the eps error, (B,) float64."""

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The weighted error and the bound's term at the steps of ``noisy``, each (B,)."""
        error = eps_mse(noisy, prediction)
        weight = self.weight(noisy.step.t).to(error.dtype)
        assert weight.shape == error.shape, f"weights of shape {tuple(weight.shape)}, not (B,)"
        return LossTerms(loss=weight * error, bound=bound_term(noisy, prediction, bound))


class LogSNRDensityMSE(Loss):
    """int density_weight(logsnr) |eps - eps_hat|^2 dlogsnr, the mean over dimensions.

    The integral is over the levels of the chain: a step has the weight of its change of logsnr, and the
    weights add up to the same on every schedule. The step to data has no finite change; it has that of the
    next step.
    """

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Check that all levels have a finite logsnr and that the loss trains the schedule.

        Raises:
            ValueError: for a learned schedule, or one whose last timestep has no signal.
        """
        super().check_schedule(schedule)
        if schedule.num_steps is not None and schedule.table()[-1].isneginf():
            raise ValueError(
                f"the loss {type(self).__name__} is an integral over logsnr, which is -inf at the last "
                "timestep: use schedule.num_steps=null, or a number for schedule.logsnr_min"
            )

    @abstractmethod
    def density_weight(self, level: NoiseLevel) -> Tensor:
        """Weight of the eps error per unit of logsnr, (B,) float64."""

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The weighted error and the bound's term at the steps of ``noisy``, each (B,)."""
        step, error = noisy.step, eps_mse(noisy, prediction)
        weight = bound.chain.num_steps * logsnr_change(step) * self.density_weight(step.t)
        return LossTerms(loss=weight.to(error.dtype) * error, bound=bound_term(noisy, prediction, bound))


def logsnr_change(step: Step | InfinitesimalStep) -> Tensor:
    """The change of logsnr over a step, or over the bin of a point of continuous time, (B,) float64.

    For the step to data it is that of the next step.
    """
    if isinstance(step, InfinitesimalStep):
        return step.width * step.rate
    return (step.t.logsnr - step.next.logsnr).where(step.is_first, step.s.logsnr - step.t.logsnr)


def log_normal_density(level: NoiseLevel, mean: float, std: float) -> Tensor:
    """Density of logsnr where ln sigma = -logsnr / 2 is normal, (B,) float64."""
    z = (-0.5 * level.logsnr - mean) / std
    return (-0.5 * z.square()).exp() / (2.0 * std * math.sqrt(2.0 * math.pi))


def eps_mse(noisy: NoisyBatch, prediction: Prediction) -> Tensor:
    """|eps - eps_hat|^2, the mean over dimensions: (B,)."""
    return mean_per_example((noisy.eps - prediction.eps_hat).square())


def bound_term(noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> Tensor:
    """The bound's term at the steps of ``noisy``, (B,) nats, without gradient."""
    with torch.no_grad():
        return bound.term(noisy.step, noisy.x0, prediction)
