"""A few terms of each example, at timesteps spread evenly over the chain and over the data set.

The chain is divided into equal ranges. Each range is drawn from twice, independently, for every example (the
last one three times, if the number of draws is odd). Over the data set the draws have low discrepancy, as
those of VDM have over a batch (Kingma et al. 2021, appendix I.1). The variation of the mean of L_t along the
chain therefore cancels in the mean over the data set, but not in the estimate of an example, nor in the
difference of two draws of one range. Both errors are computed after this variation is removed from the draws
(:func:`without_trend`).
"""

from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.estimators.base import RECONSTRUCTION_DRAWS, Assignment, BoundEstimator
from nelbo.evaluation.stratified_draws import paired_stratified_draws
from nelbo.option_types import NonNegativeInt, PositiveInt


class StratifiedEstimator(BoundEstimator):
    """L_0 of every example twice, L_t at two uniform timesteps in each of several equal ranges.

    Args:
        evaluations_per_example: network evaluations per example, two of them for L_0.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; at least one batch.
        control_variate: subtract a control variate, see :class:`BoundEstimator`.

    Raises:
        ValueError: for fewer than 3 evaluations, which leave none for L_t.
    """

    def __init__(
        self,
        evaluations_per_example: int = 8,
        seed: NonNegativeInt = 0,
        pairs_per_call: PositiveInt = 512,
        control_variate: bool = True,
    ) -> None:
        if evaluations_per_example < 3:
            raise ValueError(
                f"evaluations_per_example={evaluations_per_example}: at least 3 are needed, "
                "two for L_0 and one for L_t"
            )
        super().__init__(seed, pairs_per_call, control_variate)
        self.evaluations_per_example = evaluations_per_example

    @property
    def name(self) -> str:
        """Name in the ledger."""
        return f"stratified, {self.evaluations_per_example} evaluations per example"

    def assign(self, index: Tensor, num_examples: int, chain: StepSequence) -> Assignment:
        """Draws in 2..K for every example, (B, R)."""
        K = chain.num_steps
        draws = self.stored_draws(chain)
        u, shares = paired_stratified_draws(num_examples, draws, self.seed, "steps")
        steps = 2 + (u[index] * (K - 1)).long()
        return Assignment(steps, (K - 1) * shares.expand(steps.shape))

    def stored_draws(self, chain: StepSequence) -> int:
        """All of them."""
        # a chain of one step has no L_t
        return self.evaluations_per_example - RECONSTRUCTION_DRAWS if chain.num_steps > 1 else 0
