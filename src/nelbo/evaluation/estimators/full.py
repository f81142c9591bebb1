"""Every term of every example: the whole chain, K network evaluations per example."""

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.evaluation.estimators.base import BoundEstimator
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.tally import BoundTally


class Full(BoundEstimator):
    """L_0 and every L_t of every example, one draw of noise each."""

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return "full chain"

    def measure(
        self,
        tally: BoundTally,
        bound: VariationalBound,
        denoise: Denoise,
        x0: Tensor,
        index: Tensor,
        label: Tensor | None,
        num_examples: int,
    ) -> None:
        """Evaluate a batch and add it to the tally."""
        noise = ExampleNoise(self.seed, "full bound", index, x0)
        terms = bound.terms(denoise, x0, lambda _: noise.draw(), label)
        per_step = torch.cat([terms.reconstruction[:, None], terms.denoising], dim=1)
        for i, nats in enumerate(per_step.T, start=1):
            tally.add_terms(torch.full((len(x0),), i, device=x0.device), nats)
        tally.add_examples(terms.reconstruction, terms.denoising.sum(1), terms.prior)
