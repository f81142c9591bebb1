"""Sums and counts from which a bound, its parts and its error bars are computed.

Only sums are stored, so accumulators of several batches, rounds or ranks are added, never averaged.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.evaluation.spread import variance_over_ranges, without_trend
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.t_bins import Groups, two_groups

PARTS = ("total", "reconstruction", "denoising", "prior")


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    Attributes:
        mean: over the examples.
        stderr: of the mean, for the distribution that the data set is a sample of; NaN for a single example.
        mc_stderr: the part of ``stderr`` that more noise and timesteps would remove; None if not known.
    """

    mean: float
    stderr: float
    mc_stderr: float | None = None

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Mean and standard error of independent values (n,), in their unit."""
        n = len(values)
        stderr = values.std().item() / math.sqrt(n) if n > 1 else math.nan
        return cls(values.mean().item(), stderr)

    @property
    def data_stderr(self) -> float | None:
        """The part of ``stderr`` that only more examples would remove; None if not known.

        0 where it is not resolved: both errors are estimates, and with few examples ``mc_stderr`` may be the
        larger one.
        """
        if self.mc_stderr is None:
            return None
        return math.sqrt(max(self.stderr**2 - self.mc_stderr**2, 0.0))


@dataclass(frozen=True)
class BoundEstimate:
    """The bound and its parts, in nats per example.

    Attributes:
        total: L_0 + sum of L_t + L_T.
        reconstruction: L_0.
        denoising: the sum of L_t over the chain.
        prior: L_T.
        num_examples: number of examples.
        num_evaluations: number of network evaluations.
    """

    total: Estimate
    reconstruction: Estimate
    denoising: Estimate
    prior: Estimate
    num_examples: int
    num_evaluations: int


@dataclass(frozen=True)
class Draws:
    """Evaluated terms of a batch: R draws for each of B examples.

    Attributes:
        steps: (B, R) int64 in 1..K.
        weights: (B, R). The sum of weight * nats over a row is an unbiased estimate of the example's
            L_0 + sum of L_t.
        nats: (B, R) L_0 or L_t.
        prior: (B,) L_T, nats.
        errors: (B, R) mean squared error of x0_hat per dimension; None if not measured.
        interpolations: (B, R) position of a learned variance between its limits; None for a fixed variance.
        reconstruction_mc_variance: (B,) Monte Carlo variance of the estimate of L_0, nats^2; None if not
            known.
        denoising_mc_variance: (B,) the same of the estimate of the sum of L_t.
    """

    steps: Tensor
    weights: Tensor
    nats: Tensor
    prior: Tensor
    errors: Tensor | None = None
    interpolations: Tensor | None = None
    reconstruction_mc_variance: Tensor | None = None
    denoising_mc_variance: Tensor | None = None


class BoundAccumulator:
    """Adds up draws of the bound's terms, on the device where they are computed.

    Attributes:
        num_steps: K.
        num_examples: N, size of the data set; 0 if the estimates of single examples are not stored.
        groups: the G columns of an example's estimate.
        num_draws: R, draws of L_t that are stored for each example.
        sums: all that is stored, float64 tensors by name: ``evaluations`` (), ``examples`` (), ``parts`` and
            ``squared_parts`` (4,) in the order of PARTS, ``mc_variances`` (4,) and the examples ``mc_known``
            () for which they are known, ``count``, ``nats``, ``squared_nats`` and ``weighted_nats`` (K,),
            ``errors`` and ``interpolations`` (K,) and the draws ``errors_known`` and
            ``interpolations_known`` () that have them, ``by_example`` (N, G), ``draw_steps`` and
            ``draw_nats`` (N, R), ``draw_weights`` (R,).

    Args:
        num_steps: K, the length of the chain.
        device: of the sums.
        num_examples: size of the data set, to store the estimate of each example.
        groups: of steps, the columns of an example's estimate; L_0 and all of L_t by default.
        num_draws: the last draws of each example to store, made by :func:`paired_spread` with the
            same weights for all examples. The errors of L_t and of the total are then computed from them.
    """

    def __init__(
        self,
        num_steps: int,
        device: torch.device | str = "cpu",
        num_examples: int = 0,
        groups: Groups | None = None,
        num_draws: int = 0,
    ) -> None:
        self.num_steps = num_steps
        self.num_examples = num_examples
        self.num_draws = num_draws
        self.groups = two_groups(num_steps) if groups is None else groups
        self._group_of_step = self.groups.of_step.to(device)
        K, parts = (num_steps,), (len(PARTS),)
        shapes: dict[str, tuple[int, ...]] = {
            "evaluations": (),
            "examples": (),
            "parts": parts,
            "squared_parts": parts,
            "mc_variances": parts,
            "mc_known": (),
            "count": K,
            "nats": K,
            "squared_nats": K,
            "weighted_nats": K,
            "errors": K,
            "errors_known": (),
            "interpolations": K,
            "interpolations_known": (),
            "by_example": (num_examples, len(self.groups.columns)),
            "draw_steps": (num_examples, num_draws),
            "draw_nats": (num_examples, num_draws),
            "draw_weights": (num_draws,),
        }
        self.sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()
        }

    def add(self, draws: Draws, index: Tensor | None = None) -> None:
        """Add the draws of a batch.

        Args:
            draws: of B examples.
            index: (B,) positions of the examples in the data set, required if ``num_examples`` is given.
        """
        sums, (B, R) = self.sums, draws.steps.shape
        nats, prior = draws.nats.detach().double(), draws.prior.detach().double()
        weighted = draws.weights.double() * nats
        first = weighted.masked_fill(draws.steps != 1, 0.0)
        parts = _with_total(first.sum(1), (weighted - first).sum(1), prior)
        sums["parts"] += parts.sum(1)
        sums["squared_parts"] += parts.square().sum(1)
        reconstruction, denoising = draws.reconstruction_mc_variance, draws.denoising_mc_variance
        if self.num_draws:
            denoising = torch.zeros_like(prior)  # see `_errors_without_trend`
        if reconstruction is not None and denoising is not None:
            known = (reconstruction.detach().double(), denoising.detach().double())
            variances = _with_total(*known, torch.zeros_like(prior))  # L_T has none
            sums["mc_variances"] += variances.sum(1)
            sums["mc_known"] += B
        by_step = {
            "count": torch.ones_like(nats),
            "nats": nats,
            "squared_nats": nats.square(),
            "weighted_nats": weighted,
        }
        for name, values in (("errors", draws.errors), ("interpolations", draws.interpolations)):
            if values is not None:
                by_step[name] = values.detach().double()
                sums[f"{name}_known"] += B * R
        for name, values in by_step.items():
            sums[name].index_add_(0, draws.steps.flatten() - 1, values.flatten())
        sums["evaluations"] += B * R
        sums["examples"] += B
        if self.num_examples:
            assert index is not None, "an accumulator of single examples needs their index"
            by_group = weighted.new_zeros(B, len(self.groups.columns))
            by_group.scatter_add_(1, self._group_of_step[draws.steps - 1], weighted)
            by_group[:, -1] = prior
            sums["by_example"].index_add_(0, index, by_group)
            stored = slice(R - self.num_draws, R)
            sums["draw_steps"].index_add_(0, index, draws.steps[:, stored].double())
            sums["draw_nats"].index_add_(0, index, nats[:, stored])
            sums["draw_weights"] += draws.weights[:, stored].double().sum(0)

    @property
    def num_evaluations(self) -> int:
        """Number of network evaluations."""
        return int(self.sums["evaluations"])

    def all_reduce(self, reduce: Callable[[Tensor], None]) -> None:
        """Replace the sums by those of all ranks, in one reduction.

        Args:
            reduce: replaces a vector (S,) float64 by its sum over the ranks, in place.
        """
        flat = torch.cat([x.flatten() for x in self.sums.values()])
        reduce(flat)
        for x, total in zip(
            self.sums.values(), flat.split([x.numel() for x in self.sums.values()]), strict=True
        ):
            x.copy_(total.view_as(x))

    def empty(self) -> "BoundAccumulator":
        """A new accumulator with the same arguments and no draws."""
        device = self.sums["parts"].device
        return BoundAccumulator(self.num_steps, device, self.num_examples, self.groups, self.num_draws)

    def merge(self, other: "BoundAccumulator") -> None:
        """Add the sums of an accumulator with the same arguments."""
        for name, x in other.sums.items():
            self.sums[name] += x

    def reset(self, keep_evaluations: bool = False) -> None:
        """Set the sums to zero; optionally all but the number of network evaluations."""
        for name, x in self.sums.items():
            if not (keep_evaluations and name == "evaluations"):
                x.zero_()

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Replace sums by those of an accumulator with the same arguments, each of the same shape."""
        for name, x in sums.items():
            self.sums[name].copy_(x)

    def estimate(self, rounds: int = 1) -> BoundEstimate:
        """The bound and its parts.

        Args:
            rounds: number of times each example was added; more than one needs ``num_examples``.
        """
        sums, added = self.sums, float(self.sums["examples"])
        assert added > 0, "nothing was added to the accumulator"
        parts, squares = sums["parts"], sums["squared_parts"]
        if rounds > 1:
            assert self.num_examples, "several rounds need an accumulator of single examples"
            # the standard error follows from the examples' means over their rounds
            means = sums["by_example"] / rounds
            by_part = torch.stack([means.sum(1), means[:, 0], means[:, 1:-1].sum(1), means[:, -1]])
            parts, squares = by_part.sum(1), by_part.square().sum(1)
        n = added / rounds
        stderrs = [_stderr(n, x, xx) for x, xx in zip(parts.tolist(), squares.tolist(), strict=True)]
        mc_stderrs: list[float] | list[None] = [None] * len(PARTS)
        if float(sums["mc_known"]) == added:
            mc_stderrs = [math.sqrt(x) / n for x in (sums["mc_variances"] / rounds**2).tolist()]
        if self.num_draws:
            stderrs, mc_stderrs = self._errors_without_trend(stderrs, mc_stderrs)
        estimates = {
            name: Estimate(total / n, stderr, mc_stderr)
            for name, total, stderr, mc_stderr in zip(PARTS, parts.tolist(), stderrs, mc_stderrs, strict=True)
        }
        return BoundEstimate(num_examples=round(n), num_evaluations=self.num_evaluations, **estimates)

    def _errors_without_trend(
        self, stderrs: list[float], mc_stderrs: list[float] | list[None]
    ) -> tuple[list[float], list[float] | list[None]]:
        """Errors of the parts from the stored draws, in place of those of L_t and of the total.

        The mean of L_t along the chain is the same in every measurement of the whole data set, and is
        removed. While examples are missing it is not: their own errors remain, without a Monte Carlo part.
        """
        sums, n = self.sums, self.num_examples
        if float(sums["examples"]) != n:
            return stderrs, [None] * len(PARTS)
        weights = sums["draw_weights"] / n
        residuals = weights * without_trend(sums["draw_steps"], sums["draw_nats"])
        trend = (weights * sums["draw_nats"] - residuals).sum(1)
        examples = sums["by_example"]
        total = Estimate.of(examples.sum(1) - trend).stderr
        denoising = Estimate.of(examples[:, 1:-1].sum(1) - trend).stderr
        stderrs = [total, stderrs[1], denoising, stderrs[3]]
        variance = variance_over_ranges(residuals)
        if variance is None or mc_stderrs[1] is None:
            return stderrs, [None] * len(PARTS)
        in_denoising = math.sqrt(float(variance.sum())) / n
        return stderrs, [math.hypot(mc_stderrs[1], in_denoising), mc_stderrs[1], in_denoising, 0.0]

    def step_table(self, timesteps: Tensor) -> StepTable:
        """The sums of each step, copied to the CPU.

        Args:
            timesteps: (K,) t of each step of the chain.
        """
        sums = {name: x.cpu().clone() for name, x in self.sums.items() if name != "by_example"}
        draws, unknown = sums["count"].sum(), torch.full_like(sums["count"], torch.nan)
        return StepTable(
            t=timesteps.cpu(),
            count=sums["count"],
            sum=sums["nats"],
            sum_of_squares=sums["squared_nats"],
            sum_of_errors=sums["errors"] if sums["errors_known"] == draws else unknown,
            sum_of_interpolations=(
                sums["interpolations"] if sums["interpolations_known"] == draws else unknown
            ),
        )

    def contributions(self) -> Tensor:
        """Unbiased estimates of L_0, L_2, ..., however unevenly the steps were drawn, (K,) nats on the CPU.

        Their sum is the bound minus the prior.
        """
        return self.sums["weighted_nats"].cpu() / float(self.sums["examples"])

    def example_table(self, rounds: int = 1) -> Tensor:
        """The estimate of each example, (N, G) nats on the CPU, in the G columns of ``groups``."""
        return (self.sums["by_example"] / rounds).cpu()


def _with_total(reconstruction: Tensor, denoising: Tensor, prior: Tensor) -> Tensor:
    """The parts of each example (B,) and their sum, (4, B) in the order of PARTS."""
    parts = torch.stack([reconstruction, denoising, prior])
    return torch.cat([parts.sum(0, keepdim=True), parts])


def _stderr(n: float, total: float, squares: float) -> float:
    """Standard error of the mean of n values, from their sum and the sum of their squares."""
    if n < 2:
        return math.nan
    mean = total / n
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    return math.sqrt(variance / n)
