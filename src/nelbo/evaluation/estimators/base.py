"""Bound estimators choose the terms that are evaluated for each example, and their weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond, repeat_interleave
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import ContinuousTime, StepSequence
from nelbo.diffusion.level import mean_per_example
from nelbo.diffusion.process import diffuse
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate, Draws
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import GaussianControl
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.stratified_draws import deviations_of_sum, deviations_over_ranges
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeInt, PositiveInt
from nelbo.randomness import uniforms

RECONSTRUCTION_DRAWS = 2  # of L_0 for each example: two show its Monte Carlo variance


@dataclass(frozen=True)
class Assignment:
    """The steps 2..K at which each example of a batch is evaluated. Draws of L_0 are not part of it.

    Attributes:
        steps: (B, R) int64 in 2..K.
        weights: (B, R) float64. The sum of weight * L_t over an example's row is an unbiased estimate of its
            sum of L_t over the chain.
    """

    steps: Tensor
    weights: Tensor


class BoundEstimator(ABC):
    """Measures the bound of a data set, batch by batch, in one pass through it.

    L_0 is evaluated twice for every example; :meth:`assign` chooses where L_t is evaluated. Noise and
    timesteps are functions of the seed and of the example's position in its data set, so a result depends
    neither on the batch size nor on the number of processes.

    Args:
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network; at least one batch.
        control_variate: whether a :class:`GaussianControl`, fitted to the data that is measured, is
            subtracted from the draws. The accumulator fits its coefficients.
    """

    def __init__(
        self, seed: NonNegativeInt = 0, pairs_per_call: PositiveInt = 512, control_variate: bool = True
    ) -> None:
        self.seed = seed
        self.pairs_per_call = pairs_per_call
        self.control_variate = control_variate

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the ledger."""

    @abstractmethod
    def assign(self, index: Tensor, num_examples: int, chain: StepSequence) -> Assignment:
        """The steps at which L_t is evaluated, R for each of B examples.

        Args:
            index: (B,) positions of a batch in the data set, on the CPU.
            num_examples: size of the data set.
            chain: the chain that is measured.
        """

    def stored_draws(self, chain: StepSequence) -> int:
        """Number of draws of L_t of each example that the accumulator stores, to compute the errors from.

        R for estimators that spread timesteps so evenly that the mean of L_t along the chain does not vary
        between seeds; 0 for others, whose errors follow from the estimates of the examples.

        Args:
            chain: the chain that is measured.
        """
        return 0

    @property
    def rounds(self) -> int:
        """Number of passes through the data, including the current one; 0 during a pilot."""
        return 1

    def measure(
        self,
        accumulators: Sequence[BoundAccumulator],
        variants: Sequence[BoundVariant],
        denoise: Denoise,
        x0: Tensor,
        index: Tensor,
        cond: Cond | None,
        num_examples: int,
        control: GaussianControl | None = None,
    ) -> None:
        """Evaluate the network on a batch, and add the terms of each variant to its accumulator.

        Args:
            accumulators: receive the terms, one for each variant.
            variants: bounds to compute, all on the same chain.
            denoise: maps (x_t, level, cond) to a prediction.
            x0: (B, ...) data.
            index: (B,) position of each example in the data set.
            cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).
            num_examples: size of the whole data set.
            control: the control variate, for accumulators with ``control=True``.
        """
        chain = variants[0].bound.chain
        assignment = self.assign(index.cpu(), num_examples, chain)
        first = torch.ones(len(index), RECONSTRUCTION_DRAWS, dtype=torch.int64)
        steps = torch.cat([first, assignment.steps], dim=1).to(x0.device)
        weights = torch.cat([first.double() / RECONSTRUCTION_DRAWS, assignment.weights], dim=1).to(x0.device)
        noise = ExampleNoise(self.seed, f"bound, round {self.rounds}", index, x0)
        offsets = None
        if isinstance(chain, ContinuousTime):
            key = (self.seed, f"positions in bins, round {self.rounds}")
            offsets = uniforms(key, index.to(x0.device), steps.shape[1])
        at_once = max(1, self.pairs_per_call // len(x0))
        columns = [
            score(
                variants,
                denoise,
                x0,
                cond,
                noise,
                steps[:, part],
                offsets if offsets is None else offsets[:, part],
                control,
            )
            for part in torch.arange(steps.shape[1], device=x0.device).split(at_once)
        ]

        def deviations(values: Tensor) -> Tensor | None:
            R = RECONSTRUCTION_DRAWS
            of_L_0 = deviations_of_sum(weights[:, :R, None] * values[:, :R])
            of_L_t = self.deviations(steps[:, R:], weights[:, R:], values[:, R:])
            return None if of_L_0 is None or of_L_t is None else torch.cat([of_L_0, of_L_t], dim=1)

        for i, (accumulator, variant) in enumerate(zip(accumulators, variants, strict=True)):
            draws = Draws(
                steps=steps,
                weights=weights,
                nats=torch.cat([column.nats[i] for column in columns], dim=1),
                prior=variant.bound.prior(x0),
                errors=torch.cat([column.errors[i] for column in columns], dim=1),
                interpolations=_joined([column.interpolations for column in columns]),
                controls=_joined([column.controls for column in columns]),
                deviations=deviations,
            )
            accumulator.add(draws, index)

    def deviations(self, steps: Tensor, weights: Tensor, values: Tensor) -> Tensor | None:
        """Deviations (B, M, V) of draws from each other, linear in their values.

        The sum of their squares over M estimates the Monte Carlo variance of each example's weighted sum of
        the values. None where the draws do not show it. By default the differences of the draws within each
        range of :func:`paired_stratified_draws`.

        Args:
            steps: (B, R) int64, as assigned.
            weights: (B, R) float64, as assigned.
            values: (B, R, V) float64, such as L_t at these steps.
        """
        return deviations_over_ranges(weights.unsqueeze(2) * values)

    def shortfall(self, estimate: BoundEstimate, unit: Unit) -> str | None:
        """One sentence that says which target the estimate missed; None if it reached all."""
        return None


class MultiRoundEstimator(BoundEstimator):
    """An estimator that decides after each pass through the data whether it needs another one.

    The first pass may be a pilot, which only informs the draws of the following rounds; its estimates are
    discarded. An instance makes one measurement.

    Attributes:
        is_finished: whether it has made it.
    """

    is_finished = False

    @property
    @abstractmethod
    def in_pilot(self) -> bool:
        """Whether the current pass is the pilot."""

    @abstractmethod
    def finish_round(self, accumulator: BoundAccumulator, unit: Unit) -> bool:
        """End the current pass; returns whether another one is needed.

        Args:
            accumulator: the pilot alone, or all rounds after it; of all ranks.
            unit: of the target.
        """


@dataclass(frozen=True)
class Scores:
    """Results of R evaluations of each of B examples, under S variants.

    Attributes:
        nats: (S, B, R) L_0 or L_t.
        errors: (S, B, R) mean squared error of x0_hat, after clipping, per dimension.
        interpolations: (B, R) position of a learned variance between its limits; None for a fixed one.
        controls: (B, R) the control variate, nats; None without one.
    """

    nats: Tensor
    errors: Tensor
    interpolations: Tensor | None
    controls: Tensor | None


def score(
    variants: Sequence[BoundVariant],
    denoise: Denoise,
    x0: Tensor,
    cond: Cond | None,
    noise: ExampleNoise,
    steps: Tensor,
    offset: Tensor | None = None,
    control: GaussianControl | None = None,
) -> Scores:
    """Evaluate the network once, at steps (B, R) of each example, and compute the terms in nats.

    ``offset`` (B, R) is the position in each bin of continuous time, ``control`` the control variate.
    """
    rows = steps.shape[1]
    eps = noise.draws(rows).flatten(0, 1)
    x0 = x0.repeat_interleave(rows, dim=0)
    step = variants[0].bound.chain.step(steps.flatten(), None if offset is None else offset.flatten())
    prediction = denoise(diffuse(x0, eps, step.t), step.t, repeat_interleave(cond, rows))
    nats = [variant.term(step, x0, prediction) for variant in variants]
    errors = [mean_per_example((x0 - variant.bound.x0_hat(prediction)).square()) for variant in variants]
    interpolation = prediction.interpolation
    return Scores(
        nats=torch.stack(nats).view(len(variants), -1, rows),
        errors=torch.stack(errors).view(len(variants), -1, rows),
        interpolations=None if interpolation is None else mean_per_example(interpolation).view(-1, rows),
        controls=None if control is None else control(x0, eps, step).view(-1, rows),
    )


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    present = [column for column in columns if column is not None]
    return torch.cat(present, dim=1) if present else None
