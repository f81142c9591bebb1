"""The variational bound itself as the loss (DDPM, Ho et al. 2020, equation 5)."""

from torch import Tensor

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import InfinitesimalStep
from nelbo.diffusion.losses.base import Loss, LossTerms, NoisyBatch
from nelbo.diffusion.schedules import LearnedSchedule, NoiseSchedule
from nelbo.diffusion.variances import ReverseVariance


class VLB(Loss):
    """K L_t / dims at a random step. Its expectation is the bound minus the prior, in nats per dimension.

    A learned schedule is trained as in VDM (Kingma et al. 2021, section 5 and appendix I.2): its ends on the
    whole bound, prior included, and its interior on the variance of this estimate with importance weights.
    """

    def __call__(self, noisy: NoisyBatch, prediction: Prediction, bound: VariationalBound) -> LossTerms:
        """The loss and the bound's term at the steps of ``noisy``, each (B,)."""
        term = bound.term(noisy.step, noisy.x0, prediction)
        dims = noisy.x0[0].numel()
        loss = bound.chain.num_steps / dims * term
        if isinstance(bound.chain.schedule, LearnedSchedule):
            loss = loss + bound.prior(noisy.x0) / dims
        if isinstance(noisy.step, InfinitesimalStep):
            factor = 2.0 * noisy.weight * loss.detach()  # of the gradient of (weight loss)^2

            def scaled(gradient: Tensor) -> Tensor:
                return factor * gradient

            for interior in noisy.step.interior:
                interior.register_hook(scaled)  # pyright: ignore[reportUnknownMemberType]
        return LossTerms(loss=loss, bound=term.detach())

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Every schedule is valid: the bound trains a learned one."""

    def check_variance(self, variance: ReverseVariance) -> None:
        """Every variance is valid: the bound trains the mean, and the variance where it is learned."""
