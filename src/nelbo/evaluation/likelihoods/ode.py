"""Log-likelihood by the probability-flow ODE (Song et al. 2021)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import full_chain
from nelbo.diffusion.level import InfinitesimalStep
from nelbo.diffusion.likelihood import (
    DecoderDequantization,
    Dequantization,
    Divergence,
    NoDequantization,
    ProbabilityFlow,
    Solver,
    log_mean_weight,
    variance_of_log_mean,
)
from nelbo.evaluation.likelihoods.base import (
    Likelihood,
    LikelihoodDraws,
    LikelihoodError,
    LikelihoodEstimate,
)
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeInt, PositiveFloat, PositiveInt

# entries of the ledger of a bound that an ODE does not depend on
NOT_USED = ("K", "timesteps", "variance", "first_step", "decoder", "clip")
SOLVER_DIFFERENCE, DIVERGENCE_VARIANCE = "solver_difference", "divergence_variance"


class ODELikelihood(Likelihood):
    """-log p by the probability-flow ODE.

    Every example is integrated a second time, with a coarser solver and the same random numbers. The
    difference is that of the coarser solver; the error of the solver itself is smaller.

    Args:
        solver: of the ODE.
        divergence: of the velocity.
        dequantization: of quantised data; None for continuous data.
        dequantization_samples: draws of each example, averaged as weights; more than one is
            importance-weighted dequantisation.
        max_solver_error: largest mean difference between the solvers, in bits/dim (nats for continuous data).
        seed: of the noise.

    Raises:
        ValueError: for several draws without a dequantisation, or a solver that has no coarser one.
    """

    detail_names = (SOLVER_DIFFERENCE, DIVERGENCE_VARIANCE)

    def __init__(
        self,
        solver: Solver,
        divergence: Divergence,
        dequantization: Dequantization | None = None,
        dequantization_samples: PositiveInt = 1,
        max_solver_error: PositiveFloat = 0.01,
        seed: NonNegativeInt = 0,
    ) -> None:
        if dequantization is None and dequantization_samples > 1:
            raise ValueError(
                f"likelihood.ode.dequantization_samples={dequantization_samples}: without a dequantisation "
                "all draws are equal; use 1, or dequantization=decoder"
            )
        self.solver = solver
        self.coarser = solver.coarser()
        self.divergence = divergence
        self.dequantization = dequantization
        self.dequantization_samples = dequantization_samples
        self.max_solver_error = max_solver_error
        self.seed = seed

    @property
    def label(self) -> str:
        """Name in tables."""
        if self.dequantization is None:
            return "probability-flow ODE"
        draws = "" if self.dequantization_samples == 1 else f" x {self.dequantization_samples}"
        return f"probability-flow ODE, {self.dequantization} dequantisation{draws}"

    def check_levels(self, levels: int | None) -> None:
        """Check that quantised data is dequantised.

        Raises:
            ValueError: for quantised data without a dequantisation.
        """
        if levels is not None and self.dequantization is None:
            raise ValueError(
                f"likelihood=ode is a density, and this data has {levels} levels: choose "
                "dequantization=uniform (as published) or dequantization=decoder"
            )

    def measure(
        self, bound: VariationalBound, denoise: Denoise, x0: Tensor, index: Tensor, cond: Cond | None
    ) -> LikelihoodDraws:
        """Estimates for a batch, with the variance of the divergence and the difference of two solvers.

        Raises:
            ValueError: if the solver does not reach the noisy end.
        """
        schedule = bound.chain.schedule
        flow = ProbabilityFlow(denoise, schedule)
        dequantization = NoDequantization() if self.dequantization is None else self.dequantization
        first = full_chain(schedule).step(torch.ones_like(index))
        step = first.to_data if isinstance(first, InfinitesimalStep) else first
        details: dict[str, Tensor] = {}
        evaluations = torch.zeros_like(index)
        log_weights, variances = [], []
        for s in range(self.dequantization_samples):
            noise = ExampleNoise(self.seed, f"dequantization {s}", index, x0).draw()
            probes = self.divergence.probes(ExampleNoise(self.seed, f"divergence {s}", index, x0).draw)
            point = dequantization.draw(
                x0, step, noise, lambda x: bound.reconstruction(step, x0, denoise(x, step.t, cond))
            )
            found = flow.log_prob(point.x, self.solver, self.divergence, probes, cond)
            evaluations += found.evaluations + isinstance(dequantization, DecoderDequantization)
            log_weights.append(found.log_prob.mean(1) + point.log_weight)
            variances.append(_variance_of_mean(found.log_prob, is_exact=len(probes) == 0))
            if s == 0:
                coarse = flow.log_prob(point.x, self.coarser, self.divergence, probes, cond)
                evaluations += coarse.evaluations
                details[SOLVER_DIFFERENCE] = (coarse.log_prob - found.log_prob).mean(1)
        weights = torch.stack(log_weights)
        # the parts of the divergence's variance that the mean of the weights keeps
        divergence_variance = (weights.softmax(0).square() * torch.stack(variances)).sum(0)
        details[DIVERGENCE_VARIANCE] = divergence_variance
        variance = variance_of_log_mean(weights)
        if variance is None and self.dequantization is None:
            variance = divergence_variance
        return LikelihoodDraws(-log_mean_weight(weights), variance, details, evaluations)

    def ledger(self, bound_ledger: Mapping[str, Any], bound: VariationalBound) -> dict[str, Any]:
        """Data, schedule and weights as in the bound; solver, divergence and dequantisation."""
        unused = {*NOT_USED}
        if isinstance(self.dequantization, DecoderDequantization):
            unused -= {"variance", "first_step", "decoder", "clip"}
        return {
            **{name: value for name, value in bound_ledger.items() if name not in unused},
            **dict(zip(("logsnr_max", "logsnr_min"), bound.chain.schedule.finite_ends(), strict=True)),
            "estimator": "probability-flow ODE",
            "solver": str(self.solver),
            "divergence": str(self.divergence),
            "dequantization": None if self.dequantization is None else str(self.dequantization),
            "dequantization_samples": self.dequantization_samples,
            "seed": self.seed,
        }

    def details(self, estimate: LikelihoodEstimate, unit: Unit) -> dict[str, float]:
        """The difference of the two solvers, and the standard error that the divergence causes."""
        difference = estimate.details[SOLVER_DIFFERENCE]
        variance = estimate.details[DIVERGENCE_VARIANCE].mean / len(estimate.examples)
        return {
            SOLVER_DIFFERENCE: difference.mean * unit.per_nat,
            f"{SOLVER_DIFFERENCE}_stderr": difference.stderr * unit.per_nat,
            "stderr_divergence": math.sqrt(variance) * unit.per_nat,
        }

    def check_accuracy(self, estimate: LikelihoodEstimate, unit: Unit) -> None:
        """Check the difference between the two solvers.

        Raises:
            LikelihoodError: if it is above ``max_solver_error``, or the result is not finite.
        """
        super().check_accuracy(estimate, unit)
        error = abs(estimate.details[SOLVER_DIFFERENCE].mean) * unit.per_nat
        if not error <= self.max_solver_error:
            raise LikelihoodError(
                f"likelihood=ode: {self.solver} and {self.coarser} differ by {error:.3g} {unit.label}, more "
                f"than likelihood.ode.max_solver_error={self.max_solver_error:g}: use more steps or a lower "
                "tolerance"
            )


def _variance_of_mean(estimates: Tensor, is_exact: bool) -> Tensor:
    """Variance of the mean of P independent estimates (B, P), (B,); NaN for P = 1, 0 if they are exact."""
    if is_exact:
        return torch.zeros_like(estimates[:, 0])
    return estimates.var(1) / estimates.shape[1] if estimates.shape[1] > 1 else estimates[:, 0] * torch.nan
