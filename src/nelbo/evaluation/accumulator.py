"""Sums and counts from which a bound, its parts and its error bars are computed.

Only sums are stored, so accumulators of several batches, rounds or ranks are added, never averaged.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.stratified_draws import deviations_over_ranges, without_trend
from nelbo.evaluation.t_bins import Groups, two_groups

PART_FIELDS = ("total", "reconstruction", "denoising", "prior")  # of BoundParts
FOLDS = 2  # halves of the data set; the coefficients of one are fitted to the draws of the other


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
class BoundParts:
    """The bound of a set of examples and its parts, in nats per example.

    Attributes:
        total: L_0 + sum of L_t + L_T.
        reconstruction: L_0.
        denoising: the sum of L_t over the chain.
        prior: L_T.
        num_examples: number of examples.
    """

    total: Estimate
    reconstruction: Estimate
    denoising: Estimate
    prior: Estimate
    num_examples: int

    @property
    def parts(self) -> tuple[Estimate, Estimate, Estimate, Estimate]:
        """The total, L_0, the sum of L_t, and L_T."""
        return self.total, self.reconstruction, self.denoising, self.prior


@dataclass(frozen=True)
class BoundEstimate(BoundParts):
    """The bound of all examples of a measurement.

    Attributes:
        num_evaluations: number of network evaluations.
    """

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
        controls: (B, R) control variate of each draw, of mean 0 given its example and step, nats; None
            without one.
        deviations: maps values of the draws (B, R, V) to linear combinations (B, M, V), of draws of L_0 alone
            or of L_t alone. The sum of their squares over M estimates the Monte Carlo variance of the sum of
            weight * value. None, or None for all values, if the draws do not show it.
    """

    steps: Tensor
    weights: Tensor
    nats: Tensor
    prior: Tensor
    errors: Tensor | None = None
    interpolations: Tensor | None = None
    controls: Tensor | None = None
    deviations: Callable[[Tensor], Tensor | None] | None = None


class BoundAccumulator:
    """Adds up draws of the bound's terms, on the device where they are computed.

    With a control variate, an estimate is the sum of weight * (nats - a * control). The coefficients a of L_0
    and of L_t are fitted for each half of the data set (examples with even and odd index) to the other half,
    whose Monte Carlo variance they minimise: its noise is independent, so the estimates remain unbiased.

    Attributes:
        num_steps: K.
        num_examples: N, size of the data set; 0 if the estimates of single examples are not stored.
        groups: the G columns of an example's estimate.
        num_draws: R, draws of L_t that are stored for each example.
        sums: all that is stored, float64 tensors by name: ``evaluations`` (), ``examples`` (), ``parts`` and
            ``squared_parts`` (4,) in the order of PART_FIELDS, ``mc_variances`` (4,) and the examples
            ``mc_known`` () for which they are known, ``count``, ``nats``, ``squared_nats`` and
            ``weighted_nats`` (K,), ``errors`` and ``interpolations`` (K,) and the draws ``errors_known`` and
            ``interpolations_known`` () that have them, ``by_example`` (N, G), ``draw_steps`` and
            ``draw_nats`` (N, R), ``draw_weights`` (R,). With a control variate also ``controls_by_example``
            (N, G) and, of each half, ``controls_by_step`` (2, K), both weighted; ``draw_controls`` (N, R);
            and ``control_moments`` (2, 3, 2) of each half, in L_0 and L_t: with p the sum of the products of
            deviations of nats and controls of an example, the sums of p, of p^2 and of squared deviations of
            controls.

    Args:
        num_steps: K, the length of the chain.
        device: of the sums.
        num_examples: size of the data set, to store the estimate of each example.
        groups: of steps, the columns of an example's estimate; L_0 and all of L_t by default.
        num_draws: the last draws of each example to store, made by :func:`paired_stratified_draws` with the
            same weights for all examples. The mean of L_t along the chain is then removed from the estimates
            of the examples, and the errors of L_t and of the total are computed without it.
        control: whether draws have a control variate; needs ``num_examples``.
    """

    def __init__(
        self,
        num_steps: int,
        device: torch.device | str = "cpu",
        num_examples: int = 0,
        groups: Groups | None = None,
        num_draws: int = 0,
        control: bool = False,
    ) -> None:
        assert num_examples or not control, "a control variate needs an accumulator of single examples"
        self.num_steps = num_steps
        self.num_examples = num_examples
        self.num_draws = num_draws
        self.control = control
        self.groups = two_groups(num_steps) if groups is None else groups
        self._group_of_step = self.groups.of_step.to(device)
        K, parts = (num_steps,), (len(PART_FIELDS),)
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
        if control:
            shapes |= {
                "controls_by_example": shapes["by_example"],
                "controls_by_step": (FOLDS, num_steps),
                "control_moments": (FOLDS, 3, 2),
                "draw_controls": (num_examples, num_draws),
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
        deviations = self._deviations(draws)
        if deviations is not None:
            variances = deviations[..., :2].square().sum(1)
            by_part = _with_total(variances[:, 0], variances[:, 1], torch.zeros_like(prior))  # L_T has none
            sums["mc_variances"] += by_part.sum(1)
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
            by_group = self._sum_by_column(draws.steps, weighted)
            by_group[:, -1] = prior
            sums["by_example"].index_add_(0, index, by_group)
            stored = slice(R - self.num_draws, R)
            sums["draw_steps"].index_add_(0, index, draws.steps[:, stored].double())
            sums["draw_nats"].index_add_(0, index, nats[:, stored])
            sums["draw_weights"] += draws.weights[:, stored].double().sum(0)
            if self.control:
                self._add_controls(draws, deviations, index)

    def _add_controls(self, draws: Draws, deviations: Tensor | None, index: Tensor) -> None:
        sums, steps, fold = self.sums, draws.steps, index % FOLDS
        assert draws.controls is not None
        controls = draws.controls.double()
        weighted = draws.weights.double() * controls
        sums["controls_by_example"].index_add_(0, index, self._sum_by_column(steps, weighted))
        of_step = (fold[:, None] * self.num_steps + steps - 1).flatten()
        sums["controls_by_step"].view(-1).index_add_(0, of_step, weighted.flatten())
        stored = slice(steps.shape[1] - self.num_draws, steps.shape[1])
        sums["draw_controls"].index_add_(0, index, controls[:, stored])
        if deviations is not None:
            of_nats, of_controls = deviations.chunk(2, dim=2)
            products = (of_nats * of_controls).sum(1)
            moments = torch.stack([products, products.square(), of_controls.square().sum(1)], dim=1)
            sums["control_moments"].index_add_(0, fold, moments)

    def _deviations(self, draws: Draws) -> Tensor | None:
        """Deviations (B, M, V) of L_0 and of L_t, and of their controls: V is 2 or 4. None if not known."""
        if draws.deviations is None:
            return None
        values, is_first = [draws.nats.detach().double()], draws.steps == 1
        if self.control:
            assert draws.controls is not None, "an accumulator with a control variate needs its values"
            values.append(draws.controls.double())
        parts = [x.masked_fill(other, 0.0) for x in values for other in (~is_first, is_first)]
        return draws.deviations(torch.stack(parts, dim=2))

    def _sum_by_column(self, steps: Tensor, values: Tensor) -> Tensor:
        """Sums of the values (B, R) of draws over the steps of each column, (B, G)."""
        columns = values.new_zeros(len(values), len(self.groups.columns))
        return columns.scatter_add_(1, self._group_of_step[steps - 1], values)

    @property
    def coefficients(self) -> Tensor:
        """Coefficients of the control variate in L_0 and in L_t, for each half, (2, 2).

        The coefficient with the smallest variance is the ratio of two sums over the other half, those of p
        and of squared deviations of controls. Its sampling error would increase the variance with few
        examples. It is therefore multiplied by 1 - sum p^2 / (sum p)^2, or 0 if that is negative, as by the
        positive-part estimator of James and Stein (Efron and Morris 1973).
        """
        sums = self.sums
        products, squared_products, squares = (sums["control_moments"][:, i].clone() for i in range(3))
        if self.num_draws and self._is_complete:
            for half in range(FOLDS):
                steps, nats, controls = (
                    sums[name][half::FOLDS] for name in ("draw_steps", "draw_nats", "draw_controls")
                )
                controls = sums["draw_weights"] * controls
                product = (controls * sums["draw_weights"] * without_trend(steps, nats)).sum(1)
                products[half, 1], squared_products[half, 1] = product.sum(), product.square().sum()
                squares[half, 1] = controls.square().sum()
        known = (1.0 - squared_products / products.square()).clamp(min=0.0)
        return (known * products / squares).flip(0).nan_to_num(0.0, 0.0, 0.0)

    @property
    def num_evaluations(self) -> int:
        """Number of network evaluations."""
        return int(self.sums["evaluations"])

    def all_reduce_sum(self, reduce: Callable[[Tensor], None]) -> None:
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
        device, n = self.sums["parts"].device, self.num_examples
        return BoundAccumulator(self.num_steps, device, n, self.groups, self.num_draws, self.control)

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
        if rounds > 1 or self.control or self.num_draws:
            assert self.num_examples, "several rounds need an accumulator of single examples"
            # the standard error follows from the examples' means over their rounds
            means = self._examples(rounds)
            by_part = torch.stack([means.sum(1), means[:, 0], means[:, 1:-1].sum(1), means[:, -1]])
            parts, squares = by_part.sum(1), by_part.square().sum(1)
        n = added / rounds
        stderrs = [_stderr(n, x, xx) for x, xx in zip(parts.tolist(), squares.tolist(), strict=True)]
        variances = self._mc_variances()
        mc_stderrs: list[float] | list[None] = [None] * len(PART_FIELDS)
        if variances is not None:
            mc_stderrs = [math.sqrt(x) / added for x in variances.tolist()]
        estimates = {
            name: Estimate(total / n, stderr, mc_stderr)
            for name, total, stderr, mc_stderr in zip(
                PART_FIELDS, parts.tolist(), stderrs, mc_stderrs, strict=True
            )
        }
        return BoundEstimate(num_examples=round(n), num_evaluations=self.num_evaluations, **estimates)

    def _mc_variances(self) -> Tensor | None:
        """Monte Carlo variances of the parts, summed over the examples, (4,) nats^2; None if not known."""
        sums = self.sums
        if float(sums["mc_known"]) != float(sums["examples"]):
            return None
        _, reconstruction, denoising, prior = sums["mc_variances"].clone()
        if self.control:
            a, (products, _, squares) = self.coefficients, sums["control_moments"].unbind(1)
            change = (a * (a * squares - 2.0 * products)).sum(0)
            reconstruction, denoising = reconstruction + change[0], denoising + change[1]
        if self.num_draws:
            if not self._is_complete:
                return None
            deviations = deviations_over_ranges(self._draws_without_trend()[0])
            if deviations is None:
                return None
            denoising = deviations.square().sum()
        return torch.stack([reconstruction + denoising, reconstruction, denoising, prior]).clamp(min=0.0)

    @property
    def _is_complete(self) -> bool:
        """Whether every example was added."""
        return float(self.sums["examples"]) == self.num_examples

    def _examples(self, rounds: int) -> Tensor:
        """The estimate of each example, (N, G) nats.

        Without the control variate, and without the mean of L_t along the chain at the example's own steps,
        which is replaced by its mean over the examples. While examples are missing it remains.
        """
        sums = self.sums
        examples = sums["by_example"] / rounds
        if self.control:
            by_column = self.coefficients[self._fold][:, [0] + [1] * (examples.shape[1] - 1)]
            examples = examples - by_column * sums["controls_by_example"] / rounds
        if self.num_draws and self._is_complete:
            _, trend = self._draws_without_trend()
            trend = self._sum_by_column(sums["draw_steps"].long(), trend)
            examples = examples - trend + trend.mean(0)
        return examples

    @property
    def _fold(self) -> Tensor:
        """(N,) int64, the half of the data set that each example belongs to."""
        return torch.arange(self.num_examples, device=self.sums["parts"].device) % FOLDS

    def _draws_without_trend(self) -> tuple[Tensor, Tensor]:
        """The stored draws, weighted, without the mean of L_t along the chain, and this mean; (N, R) each."""
        sums, weights = self.sums, self.sums["draw_weights"] / self.num_examples
        nats = sums["draw_nats"]
        if self.control:
            nats = nats - self.coefficients[self._fold, 1:] * sums["draw_controls"]
        residuals = weights * without_trend(sums["draw_steps"], nats)
        return residuals, weights * nats - residuals

    def step_table(self, timesteps: Tensor) -> StepTable:
        """The sums of each step, without the control variate, copied to the CPU.

        Args:
            timesteps: (K,) t of each step of the chain.
        """
        names = ("count", "nats", "squared_nats", "errors", "errors_known")
        names += ("interpolations", "interpolations_known")
        sums = {name: self.sums[name].cpu().clone() for name in names}
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
        nats = self.sums["weighted_nats"]
        if self.control:
            by_step = self.coefficients[:, self._group_of_step.clamp(max=1)]
            nats = nats - (by_step * self.sums["controls_by_step"]).sum(0)
        return nats.cpu() / float(self.sums["examples"])

    def example_table(self, rounds: int = 1) -> Tensor:
        """The estimate of each example, (N, G) nats on the CPU, in the G columns of ``groups``."""
        return self._examples(rounds).cpu()


def _with_total(reconstruction: Tensor, denoising: Tensor, prior: Tensor) -> Tensor:
    """The parts of each example (B,) and their sum, (4, B) in the order of PART_FIELDS."""
    parts = torch.stack([reconstruction, denoising, prior])
    return torch.cat([parts.sum(0, keepdim=True), parts])


def _stderr(n: float, total: float, squares: float) -> float:
    """Standard error of the mean of n values, from their sum and the sum of their squares."""
    if n < 2:
        return math.nan
    mean = total / n
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    return math.sqrt(variance / n)
