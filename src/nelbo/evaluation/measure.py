"""Measuring the bound of a whole data set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate, StepTable
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.t_bins import t_bins
from nelbo.evaluation.units import Unit

Progress = Callable[[BoundAccumulator, BoundAccumulator], None]


@dataclass(frozen=True)
class Measurement:
    """The bound of a data set under one variant.

    Attributes:
        estimate: the bound and its parts.
        steps: the terms of every step of the chain.
        examples: (N, columns) L_0, the sums of L_t by decade, and L_T of each example, nats.
        columns: names of these columns.
    """

    estimate: BoundEstimate
    steps: StepTable
    examples: Tensor
    columns: tuple[str, ...]

    @classmethod
    def of(cls, accumulator: BoundAccumulator, rounds: int) -> "Measurement":
        """What an accumulator of so many rounds through the data holds."""
        return cls(
            accumulator.estimate(rounds),
            accumulator.step_table(),
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
    progress: Progress = lambda total, fresh: None,
    all_reduce_sum: Callable[[Tensor], None] = lambda _: None,
) -> list[Measurement]:
    """Go through the data until the estimator is content with the first variant.

    Args:
        estimator: chooses the terms.
        variants: what is measured; all of them from the same network evaluations.
        denoise: maps (x_t, level, label) to a prediction.
        batches: this process's part of the data set, on ``device`` and in values; walked through once per
            round.
        num_examples: size of the whole data set.
        unit: in which the estimator's target is given.
        device: where the sums are kept.
        conditional: whether the denoiser is told the labels.
        progress: is shown the rounds before and what this process has measured of this one, after every
            batch.
        all_reduce_sum: replaces sums by those of all processes together, in place.

    Returns:
        A measurement for each variant.
    """
    chain = variants[0].bound.chain
    groups = t_bins(chain.timesteps())
    totals = [BoundAccumulator(chain.num_steps, device, num_examples, groups) for _ in variants]
    while True:
        fresh = [total.empty() for total in totals]
        for batch in batches:
            label = batch.label if conditional else None
            estimator.measure(fresh, variants, denoise, batch.x0, batch.index, label, num_examples)
            progress(totals[0], fresh[0])
        is_pilot = estimator.rounds == 0
        for total, part in zip(totals, fresh, strict=True):
            all_reduce_sum(part.sums)
            total.merge(part)
        more = estimator.again(totals[0], unit)
        if is_pilot:
            for total in totals:
                total.forget_estimates()
        if not more:
            return [Measurement.of(total, estimator.rounds) for total in totals]
