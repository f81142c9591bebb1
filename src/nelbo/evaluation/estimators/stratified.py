"""A few terms of each example, with timesteps spread evenly over the data set."""

import torch
from torch import Tensor

from nelbo.diffusion.timesteps import stratified_uniforms
from nelbo.evaluation.estimators.base import Assignment, BoundEstimator
from nelbo.randomness import generator


class Stratified(BoundEstimator):
    """L_0 of every example once, L_t at stratified uniform timesteps t = 2..T.

    Over the data set the timesteps form one low-discrepancy sequence; the standard error is that of
    independent examples, which is the larger one.

    Args:
        evaluations_per_example: network evaluations per example, one of them for L_0.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network.

    Raises:
        ValueError: for fewer than 2 evaluations, which leave none for L_t.
    """

    def __init__(self, evaluations_per_example: int = 8, seed: int = 0, pairs_per_call: int = 512) -> None:
        if evaluations_per_example < 2:
            raise ValueError(
                f"evaluations_per_example={evaluations_per_example}: at least 2 are needed, "
                "one for L_0 and one for L_t"
            )
        super().__init__(seed, pairs_per_call)
        self.evaluations_per_example = evaluations_per_example

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"stratified, {self.evaluations_per_example} evaluations per example"

    def assign(self, index: Tensor, num_examples: int, K: int) -> Assignment:
        """Step 1, then draws in 2..K that share the K - 1 denoising terms among them."""
        draws = self.evaluations_per_example - 1 if K > 1 else 0  # a chain of one step has no L_t
        u = stratified_uniforms(num_examples * draws, generator(self.seed, "steps", num_examples, draws))
        drawn = 2 + (u.view(num_examples, draws)[index] * (K - 1)).long()
        steps = torch.cat([torch.ones(len(index), 1, dtype=torch.long), drawn], dim=1)
        weights = torch.full(steps.shape, (K - 1) / max(draws, 1), dtype=torch.float64)
        weights[:, 0] = 1.0
        return Assignment(steps, weights)
