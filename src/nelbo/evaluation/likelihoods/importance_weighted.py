"""The importance-weighted bound (IWAE, Burda et al. 2016)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import ContinuousTime, StepSequence
from nelbo.diffusion.likelihood import (
    effective_sample_size,
    log_mean_weight,
    log_weight,
    variance_of_log_mean,
)
from nelbo.evaluation.likelihoods.base import Likelihood, LikelihoodDraws, LikelihoodEstimate
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeInt, PositiveInt


class TrajectoryLikelihood(Likelihood):
    """A likelihood from the weights of trajectories of a chain.

    Args:
        importance_samples: M, trajectories that are averaged, K network evaluations each.
        seed: of the noise.
    """

    choice: str  # of conf/likelihood

    def __init__(self, importance_samples: PositiveInt = 8, seed: NonNegativeInt = 0) -> None:
        self.importance_samples = importance_samples
        self.seed = seed

    @property
    def trajectories(self) -> str:
        """Their number, in words."""
        return "1 trajectory" if self.importance_samples == 1 else f"{self.importance_samples} trajectories"

    def check_chain(self, chain: StepSequence) -> None:
        """Check that the chain has finitely many steps.

        Raises:
            ValueError: for the limit T -> infinity.
        """
        if isinstance(chain, ContinuousTime):
            raise ValueError(
                f"likelihood={self.choice} needs a chain of finitely many steps, and this model is in "
                "continuous time: use a number of steps, such as steps=100"
            )

    def log_weights(
        self, bound: VariationalBound, denoise: Denoise, x0: Tensor, index: Tensor, cond: Cond | None
    ) -> Tensor:
        """Log weights of M trajectories from the forward process, (M, B) float64 nats."""
        noises = (
            ExampleNoise(self.seed, f"trajectory {m}", index, x0) for m in range(self.importance_samples)
        )
        return torch.stack([log_weight(bound, denoise, x0, noise.draw, cond) for noise in noises])

    def ledger(self, bound_ledger: Mapping[str, Any], bound: VariationalBound) -> dict[str, Any]:
        """That of the bound, with this estimator."""
        return {
            **bound_ledger,
            "estimator": self.label,
            "importance_samples": self.importance_samples,
            "seed": self.seed,
        }


class ImportanceWeightedLikelihood(TrajectoryLikelihood):
    """-log of the mean weight of several trajectories of the chain; with one trajectory it is the bound.

    Args:
        importance_samples: trajectories of each example, K network evaluations each.
        seed: of the noise.
    """

    choice = "iwae"
    detail_names = ("effective_sample_size",)

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"importance-weighted bound, {self.trajectories}"

    def measure(
        self, bound: VariationalBound, denoise: Denoise, x0: Tensor, index: Tensor, cond: Cond | None
    ) -> LikelihoodDraws:
        """Estimates for a batch, with the effective sample size."""
        log_weights = self.log_weights(bound, denoise, x0, index, cond)
        return LikelihoodDraws(
            nats=-log_mean_weight(log_weights),
            variance=variance_of_log_mean(log_weights),
            details={"effective_sample_size": effective_sample_size(log_weights)},
            evaluations=torch.full_like(index, self.importance_samples * bound.chain.num_steps),
        )

    def details(self, estimate: LikelihoodEstimate, unit: Unit) -> dict[str, float]:
        """The mean effective sample size."""
        return {"effective_sample_size": estimate.details["effective_sample_size"].mean}
