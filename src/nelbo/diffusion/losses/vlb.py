"""The variational bound itself as the loss (DDPM, Ho et al. 2020, equation 5)."""

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.losses.base import Loss, LossTerms, NoisyBatch
from nelbo.diffusion.variances import ReverseVariance


class VLB(Loss):
    """K L_t / dims at a random step. Its expectation is the bound minus the prior, in nats per dimension."""

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The loss and the bound's term at the steps of ``noisy``, each (B,)."""
        term = bound.term(noisy.step, noisy.x0, prediction)
        dims = noisy.x0[0].numel()
        return LossTerms(loss=bound.chain.num_steps / dims * term, bound=term.detach())

    def check_variance(self, variance: ReverseVariance) -> None:
        """Every variance is valid: the bound trains the mean, and the variance where it is learned."""
