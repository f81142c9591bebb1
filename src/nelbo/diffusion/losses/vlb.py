"""The variational bound itself as the loss (DDPM, Ho et al. 2020, equation 5)."""

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.losses.base import Loss, LossTerms, NoisyBatch


class VLB(Loss):
    """K L_t / dims at a random step: its expectation is the bound less the prior, in nats per dimension."""

    trains_variance = True

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """Score a prediction at the steps of ``noisy``."""
        term = bound.term(noisy.step, noisy.x0, prediction)
        dims = noisy.x0[0].numel()
        return LossTerms(loss=bound.chain.num_steps / dims * term, bound=term.detach())
