"""Measuring the bound of a whole data set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise
from nelbo.evaluation.decades import decades
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.scoring import Scoring
from nelbo.evaluation.tally import BoundEstimate, BoundTally, StepTable
from nelbo.evaluation.units import Unit

Progress = Callable[[BoundTally, BoundTally], None]


@dataclass(frozen=True)
class Measurement:
    """The bound of a data set under one scoring.

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
    def of(cls, tally: BoundTally, rounds: int) -> "Measurement":
        """What a tally of so many rounds through the data holds."""
        return cls(
            tally.estimate(rounds), tally.step_table(), tally.example_table(rounds), tally.groups.columns
        )


@torch.no_grad()
def measure(
    estimator: BoundEstimator,
    scorings: Sequence[Scoring],
    denoise: Denoise,
    batches: Iterable[Batch],
    num_examples: int,
    unit: Unit,
    device: torch.device | str = "cpu",
    conditional: bool = False,
    progress: Progress = lambda total, fresh: None,
    add_over_ranks: Callable[[Tensor], None] = lambda _: None,
) -> list[Measurement]:
    """Go through the data until the estimator is content with the first scoring.

    Args:
        estimator: chooses the terms.
        scorings: what is measured; all of them from the same network evaluations.
        denoise: maps (x_t, level, label) to a prediction.
        batches: this process's part of the data set, on ``device`` and in values; walked through once per
            round.
        num_examples: size of the whole data set.
        unit: in which the estimator's target is given.
        device: where the sums are kept.
        conditional: whether the denoiser is told the labels.
        progress: is shown the rounds before and what this process has measured of this one, after every
            batch.
        add_over_ranks: replaces sums by those of all processes together, in place.

    Returns:
        A measurement for each scoring.
    """
    chain = scorings[0].bound.chain
    groups = decades(chain.timesteps())
    totals = [BoundTally(chain.num_steps, device, num_examples, groups) for _ in scorings]
    while True:
        fresh = [total.empty() for total in totals]
        for batch in batches:
            label = batch.label if conditional else None
            estimator.measure(fresh, scorings, denoise, batch.x0, batch.index, label, num_examples)
            progress(totals[0], fresh[0])
        is_pilot = estimator.rounds == 0
        for total, part in zip(totals, fresh, strict=True):
            add_over_ranks(part.sums)
            total.merge(part)
        more = estimator.again(totals[0], unit)
        if is_pilot:
            for total in totals:
                total.forget_estimates()
        if not more:
            return [Measurement.of(total, estimator.rounds) for total in totals]
