"""The interface of likelihoods, and their measurement on a data set."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.units import Unit
from nelbo.progress import ReportProgress


class LikelihoodError(ValueError):
    """A likelihood that could not be computed, or not as accurately as demanded; raised on all processes."""


@dataclass(frozen=True)
class LikelihoodDraws:
    """Estimates for a batch.

    Attributes:
        nats: (B,) float64, -log p.
        variance: (B,) float64, Monte Carlo variance of ``nats``; None where it is not known.
        details: (B,) float64 each, the values of ``Likelihood.detail_names``, by name.
        evaluations: (B,) network evaluations.
    """

    nats: Tensor
    variance: Tensor | None
    details: Mapping[str, Tensor]
    evaluations: Tensor


@dataclass(frozen=True)
class LikelihoodEstimate:
    """A likelihood of a data set, in nats per example.

    Attributes:
        total: -log p.
        details: means over the examples, by name.
        examples: (N,) -log p of each example.
        num_evaluations: number of network evaluations.
    """

    total: Estimate
    details: Mapping[str, Estimate]
    examples: Tensor
    num_evaluations: int


@dataclass(frozen=True)
class MeasuredLikelihood:
    """A likelihood of a data set, with what it depends on.

    Attributes:
        label: name in tables.
        estimate: the value.
        ledger: what it depends on besides the network.
        details: further values, in the unit of the bound, by name.
    """

    label: str
    estimate: LikelihoodEstimate
    ledger: Mapping[str, Any]
    details: Mapping[str, float]


class Likelihood(ABC):
    """Estimates -log p of each example of a batch, or of a sample of the model for each example.

    Random numbers are functions of the seed and of the example's position in its data set.

    Attributes:
        seed: of the random numbers.
        detail_names: values that are measured of each example besides -log p.
    """

    seed: int
    detail_names: tuple[str, ...]

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in tables."""

    def check_levels(self, levels: int | None) -> None:
        """Check that the likelihood is defined for data with this number of levels; None is continuous data.

        Raises:
            ValueError: for options that cannot work.
        """
        return

    def check_chain(self, chain: StepSequence) -> None:
        """Check that the likelihood is defined on a chain.

        Raises:
            ValueError: for options that cannot work.
        """
        return

    @abstractmethod
    def measure(
        self, bound: VariationalBound, denoise: Denoise, x0: Tensor, index: Tensor, cond: Cond | None
    ) -> LikelihoodDraws:
        """Estimates for a batch.

        Args:
            bound: chain, decoder and clipping.
            denoise: maps (x_t, level, cond) to a prediction.
            x0: (B, ...) data.
            index: (B,) position of each example in the data set.
            cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).

        Raises:
            ValueError: if the computation fails.
        """

    @abstractmethod
    def ledger(self, bound_ledger: Mapping[str, Any], bound: VariationalBound) -> dict[str, Any]:
        """What the result depends on besides the network.

        Args:
            bound_ledger: of the bound of the same chain on the same examples.
            bound: this bound.
        """

    @abstractmethod
    def details(self, estimate: LikelihoodEstimate, unit: Unit) -> dict[str, float]:
        """Values to report besides the likelihood itself, by name; nats converted to ``unit``."""

    def check_accuracy(self, estimate: LikelihoodEstimate, unit: Unit) -> None:
        """Check a finished measurement.

        Raises:
            LikelihoodError: for a result that is not finite, or not as accurate as demanded.
        """
        if not math.isfinite(estimate.total.mean):
            raise LikelihoodError(f"the {self.label} is {estimate.total.mean}: the model has diverged")


@torch.no_grad()
def measure_likelihood(
    likelihood: Likelihood,
    bound: VariationalBound,
    denoise: Denoise,
    batches: Iterable[Batch],
    num_examples: int,
    device: torch.device | str = "cpu",
    conditional: bool = False,
    progress: ReportProgress = lambda done, total: None,
    all_reduce_sum: Callable[[Tensor], None] = lambda _: None,
) -> LikelihoodEstimate:
    """Measure a likelihood on a data set.

    Args:
        likelihood: to measure.
        bound: chain, decoder and clipping.
        denoise: maps (x_t, level, cond) to a prediction.
        batches: this process's part of the data set, on ``device`` and in values.
        num_examples: size of the whole data set.
        device: of the results.
        conditional: whether the denoiser receives the conditions.
        progress: called after every batch with the number of examples of this process, and of the whole.
        all_reduce_sum: replaces a vector by its sum over all processes, in place.

    Raises:
        LikelihoodError: if the computation fails, on this process or on another.
    """
    names = ("nats", "variance", "evaluations", *likelihood.detail_names)
    columns = {name: torch.zeros(num_examples, dtype=torch.float64, device=device) for name in names}
    done, problem = 0, None
    for batch in batches:
        cond = batch.cond if conditional else None
        try:
            draws = likelihood.measure(bound, denoise, batch.x0, batch.index, cond)
        except ValueError as error:
            problem = error
            break
        unknown = torch.full_like(draws.nats, torch.nan)
        found = {
            "nats": draws.nats,
            "variance": unknown if draws.variance is None else draws.variance,
            "evaluations": draws.evaluations.double(),
            **draws.details,
        }
        for name, column in columns.items():
            column[batch.index] = found[name]
        done += len(batch.index)
        progress(done, num_examples)
    failures = torch.tensor([0.0 if problem is None else 1.0], dtype=torch.float64, device=device)
    all_reduce_sum(failures)
    if failures.item() > 0.0:
        raise LikelihoodError(problem or f"the {likelihood.label} failed in another process") from problem
    for column in columns.values():
        all_reduce_sum(column)
    nats, variance = columns.pop("nats").cpu(), columns.pop("variance").cpu()
    evaluations = int(columns.pop("evaluations").sum())
    known = Estimate.of(nats)
    mc_stderr = None if variance.isnan().any() else math.sqrt(variance.sum().item()) / num_examples
    total = Estimate(known.mean, known.stderr, mc_stderr)
    details = {name: Estimate.of(column.cpu()) for name, column in columns.items()}
    return LikelihoodEstimate(total, details, nats, evaluations)
