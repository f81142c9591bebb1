"""Bounds of -log p from both sides, on samples of the model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.likelihood import effective_sample_size, log_mean_weight, sample_chain
from nelbo.evaluation.likelihoods.base import LikelihoodDraws, LikelihoodEstimate
from nelbo.evaluation.likelihoods.importance_weighted import TrajectoryLikelihood
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.units import Unit

LOWER, GAP = "lower", "gap"
OF_THE_DATA = ("data", "fingerprint", "split")  # entries of a ledger that do not describe samples


class Sandwich(TrajectoryLikelihood):
    """Upper and lower bound of -log p of samples of the model: one for each example, with its condition.

    The upper bound is the importance-weighted one. In the lower bound, the trajectory that made the sample,
    an exact draw of the posterior, replaces one of the others; see
    :mod:`nelbo.diffusion.likelihood.sandwich`. The two have all other trajectories in common.

    Args:
        importance_samples: M, trajectories in each bound; M + 1 are drawn, K network evaluations each.
        seed: of the noise.
    """

    choice = "sandwich"
    detail_names = (LOWER, GAP, "effective_sample_size")

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"sandwich on the model's samples, {self.trajectories}"

    def measure(
        self, bound: VariationalBound, denoise: Denoise, x0: Tensor, index: Tensor, cond: Cond | None
    ) -> LikelihoodDraws:
        """The upper bound of a sample for each example, with the lower bound and the difference of both."""
        made = sample_chain(bound, denoise, ExampleNoise(self.seed, "sample", index, x0).draw, cond)
        drawn = self.log_weights(bound, denoise, made.x0, index, cond)
        upper = -log_mean_weight(drawn)
        lower = -log_mean_weight(torch.cat([made.log_weight[None], drawn[1:]]))
        return LikelihoodDraws(
            nats=upper,
            variance=None,
            details={LOWER: lower, GAP: upper - lower, "effective_sample_size": effective_sample_size(drawn)},
            evaluations=torch.full_like(index, (self.importance_samples + 1) * bound.chain.num_steps),
        )

    def ledger(self, bound_ledger: Mapping[str, Any], bound: VariationalBound) -> dict[str, Any]:
        """That of the bound, for samples; the data is named where it gives the conditions."""
        unused = () if bound_ledger["conditional"] else OF_THE_DATA
        used = {name: value for name, value in bound_ledger.items() if name not in unused}
        return super().ledger(used, bound)

    def details(self, estimate: LikelihoodEstimate, unit: Unit) -> dict[str, float]:
        """The lower bound and the gap, with errors, and the mean effective sample size."""
        found: dict[str, float] = {}
        for name in (LOWER, GAP):
            part = estimate.details[name]
            found |= {name: part.mean * unit.per_nat, f"{name}_stderr": part.stderr * unit.per_nat}
        return found | {"effective_sample_size": estimate.details["effective_sample_size"].mean}
