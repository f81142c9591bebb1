"""Measurement of the bound of a data set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import GaussianControl
from nelbo.evaluation.estimators import BoundEstimator, MultiRoundEstimator
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.t_bins import t_bins
from nelbo.evaluation.units import Unit

RoundProgress = Callable[[BoundAccumulator, BoundAccumulator], None]


@dataclass(frozen=True)
class Measurement:
    """The bound of a data set under one variant.

    Attributes:
        estimate: the bound and its parts.
        steps: sums of the terms of every step of the chain.
        contributions: (K,) unbiased estimates of L_0 and every L_t, nats.
        examples: (N, columns) L_0, the sums of L_t per bin of t, and L_T of each example, nats.
        columns: names of these columns.
    """

    estimate: BoundEstimate
    steps: StepTable
    contributions: Tensor
    examples: Tensor
    columns: tuple[str, ...]

    @classmethod
    def of(cls, accumulator: BoundAccumulator, timesteps: Tensor, rounds: int) -> "Measurement":
        """The measurement of an accumulator after a number of rounds through the data.

        Args:
            accumulator: of the sums.
            timesteps: (K,) t of each step of the chain.
            rounds: number of times each example was added.
        """
        return cls(
            accumulator.estimate(rounds),
            accumulator.step_table(timesteps),
            accumulator.contributions(),
            accumulator.example_table(rounds),
            accumulator.groups.columns,
        )


@torch.no_grad()
def measure(
    estimator: BoundEstimator,
    variants: Sequence[BoundVariant],
    denoise: Denoise,
    batches: Iterable[Batch],
    num_examples: int,
    unit: Unit,
    device: torch.device | str = "cpu",
    conditional: bool = False,
    progress: RoundProgress = lambda total, fresh: None,
    all_reduce_sum: Callable[[Tensor], None] = lambda _: None,
    control: GaussianControl | None = None,
) -> list[Measurement]:
    """Measure the bound of a data set, in as many rounds as the estimator needs for the first variant.

    Args:
        estimator: chooses the terms.
        variants: bounds to compute, all from the same network evaluations.
        denoise: maps (x_t, level, cond) to a prediction.
        batches: this process's part of the data set, on ``device`` and in values; iterated once per round.
        num_examples: size of the whole data set.
        unit: of the estimator's target.
        device: of the sums.
        conditional: whether the denoiser receives the conditions.
        progress: called after every batch with the sums of the previous rounds and this process's sums of the
            current one.
        all_reduce_sum: replaces a vector by its sum over all processes, in place.
        control: the control variate, on ``device``; None for none.

    Returns:
        One measurement per variant.

    Raises:
        ValueError: for an estimator of several rounds that has made a measurement.
    """
    if isinstance(estimator, MultiRoundEstimator) and estimator.is_finished:
        raise ValueError(f"this {type(estimator).__name__} has made its measurement: a new one is needed")
    chain = variants[0].bound.chain
    groups = t_bins(chain.t())
    stored = estimator.stored_draws(chain)
    totals = [
        BoundAccumulator(chain.num_steps, device, num_examples, groups, stored, control is not None)
        for _ in variants
    ]
    while True:
        fresh = [total.empty() for total in totals]
        for batch in batches:
            cond = batch.cond if conditional else None
            estimator.measure(fresh, variants, denoise, batch.x0, batch.index, cond, num_examples, control)
            progress(totals[0], fresh[0])
        for total, part in zip(totals, fresh, strict=True):
            part.all_reduce_sum(all_reduce_sum)
            total.merge(part)
        if not isinstance(estimator, MultiRoundEstimator):
            break
        was_pilot = estimator.in_pilot
        needs_another = estimator.finish_round(totals[0], unit)
        if was_pilot:
            for total in totals:
                total.reset(keep_evaluations=True)
        if not needs_another:
            estimator.is_finished = True
            break
    return [Measurement.of(total, chain.step_numbers, estimator.rounds) for total in totals]
