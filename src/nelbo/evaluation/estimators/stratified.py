"""A few terms of each example, with timesteps spread evenly over the data set."""

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.timesteps import stratified_uniforms
from nelbo.evaluation.estimators.base import BoundEstimator
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.tally import BoundTally
from nelbo.randomness import generator


class Stratified(BoundEstimator):
    """L_0 of every example once, L_t at stratified uniform timesteps t = 2..T.

    Over the data set the timesteps form one low-discrepancy sequence; the standard error is that of
    independent examples, which is the larger one.

    Args:
        evaluations_per_example: network evaluations per example, one of them for L_0.
        seed: of the draws.

    Raises:
        ValueError: for fewer than 2 evaluations, which leave none for L_t.
    """

    def __init__(self, evaluations_per_example: int = 8, seed: int = 0) -> None:
        if evaluations_per_example < 2:
            raise ValueError(
                f"evaluations_per_example={evaluations_per_example}: at least 2 are needed, "
                "one for L_0 and one for L_t"
            )
        super().__init__(seed)
        self.evaluations_per_example = evaluations_per_example
        self._tables: dict[tuple[int, int], Tensor] = {}

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"stratified, {self.evaluations_per_example} evaluations per example"

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
        K = bound.chain.num_steps
        noise = ExampleNoise(self.seed, "stratified bound", index, x0)
        steps = self._steps(num_examples, K)[index.cpu()].to(x0.device)
        nats: list[Tensor] = []
        for column in steps.T:
            step = bound.chain.step(column)
            prediction = denoise(diffuse(x0, noise.draw(), step.t), step.t, label)
            nats.append(bound.term(step, x0, prediction))
            tally.add_terms(column, nats[-1])
        reconstruction, *denoising = nats
        tally.add_examples(
            reconstruction=reconstruction,
            denoising=(K - 1) * sum(denoising, torch.zeros_like(reconstruction)) / max(len(denoising), 1),
            prior=bound.prior(x0),
        )

    def _steps(self, num_examples: int, K: int) -> Tensor:
        """(num_examples, evaluations) steps: 1, then draws in 2..K; the same at every call."""
        key = (num_examples, K)
        if key not in self._tables:
            draws = self.evaluations_per_example - 1 if K > 1 else 0  # one step: there is no L_t
            u = stratified_uniforms(num_examples * draws, generator(self.seed, "stratified steps", *key))
            steps = 2 + (u * (K - 1)).long().view(num_examples, draws)
            self._tables[key] = torch.cat([torch.ones(num_examples, 1, dtype=torch.long), steps], dim=1)
        return self._tables[key]
