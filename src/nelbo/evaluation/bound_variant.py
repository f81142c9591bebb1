"""One way to score a prediction. Several of them share its network evaluations."""

from dataclasses import dataclass, replace

from torch import Tensor

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step
from nelbo.diffusion.variances import ReverseVariance


@dataclass(frozen=True)
class BoundVariant:
    """A bound, and the variance of the reverse steps that it is computed with.

    A network is asked for x0_hat and, at most, for a learned variance. What the bound would be with another
    variance follows from the same answer.

    Attributes:
        bound: chain, decoder and clipping.
        variance: in place of the denoiser's own; None for that.
    """

    bound: VariationalBound
    variance: ReverseVariance | None = None

    def term(self, step: Step, x0: Tensor, prediction: Prediction) -> Tensor:
        """L_0 or L_t of each example, (B,) nats; see :meth:`VariationalBound.term`."""
        if self.variance is not None:
            prediction = replace(prediction, variance=self.variance)
        return self.bound.term(step, x0, prediction)
