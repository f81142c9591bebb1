"""Measuring the bound of a whole data set."""

from collections.abc import Callable, Iterable

import torch

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.tally import BoundEstimate, BoundTally
from nelbo.evaluation.units import Unit

Progress = Callable[[BoundTally], None]


@torch.no_grad()
def measure(
    estimator: BoundEstimator,
    bound: VariationalBound,
    denoise: Denoise,
    batches: Iterable[Batch],
    num_examples: int,
    unit: Unit,
    device: torch.device | str = "cpu",
    conditional: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[BoundEstimate, BoundTally]:
    """Go through the data until the estimator is content.

    Args:
        estimator: chooses the terms.
        bound: what is measured.
        denoise: maps (x_t, level, label) to a prediction.
        batches: the data set, on ``device`` and in values; walked through once per round.
        num_examples: its size.
        unit: in which the estimator's target is given.
        device: where the sums are kept.
        conditional: whether the denoiser is told the labels.
        progress: is shown the tally after every batch.

    Returns:
        The bound, and the tally with the terms of every step.
    """
    tally = BoundTally(bound.chain.num_steps, device, num_examples)
    while True:
        for batch in batches:
            label = batch.label if conditional else None
            estimator.measure(tally, bound, denoise, batch.x0, batch.index, label, num_examples)
            progress(tally)
        if not estimator.again(tally, unit):
            return tally.estimate(estimator.rounds), tally
