"""Variants of a bound that are computed from the same network evaluations."""

from dataclasses import dataclass, replace

from torch import Tensor

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import InfinitesimalStep, Step
from nelbo.diffusion.variances import ReverseVariance


@dataclass(frozen=True)
class BoundVariant:
    """A bound, and the variance of the reverse steps to compute it with.

    The bound under another variance follows from the same output of the network.

    Attributes:
        bound: chain, decoder and clipping.
        variance: replaces that of the denoiser; None keeps it.
    """

    bound: VariationalBound
    variance: ReverseVariance | None = None

    def term(self, step: Step | InfinitesimalStep, x0: Tensor, prediction: Prediction) -> Tensor:
        """L_0 or L_t of each example, (B,) nats; see :meth:`VariationalBound.term`."""
        if self.variance is not None:
            prediction = replace(prediction, variance=self.variance)
        return self.bound.term(step, x0, prediction)
