"""Bound estimators: which terms of which examples are evaluated, and how they add up to the bound."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.level import mean_per_example
from nelbo.diffusion.process import diffuse
from nelbo.evaluation.accumulator import BoundAccumulator, BoundEstimate, Draws
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.units import Unit
from nelbo.option_types import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Assignment:
    """Which steps of the chain are evaluated for each example of a batch.

    The first two columns are two draws of L_0; the others cover the chain.

    Attributes:
        steps: (B, R) int64 in 1..K.
        weights: (B, R) float64, with which the sum of weight * term over an example's row is an unbiased
            estimate of its L_0 + sum of L_t.
    """

    steps: Tensor
    weights: Tensor


class BoundEstimator(ABC):
    """Measures the bound of a data set, batch by batch, in one or more rounds through it.

    Attributes:
        needs_rounds: whether a single round is not yet a measurement.

    Noise and timesteps are functions of the seed and of the example's position in its data set, so a
    result depends neither on the batch size nor on the number of processes.

    Args:
        seed: of the draws.
        pairs_per_call: how many pairs of example and timestep one call of the network takes, which is a
            batch at least.
    """

    needs_rounds: bool = False

    def __init__(self, seed: NonNegativeInt = 0, pairs_per_call: PositiveInt = 512) -> None:
        self.seed = seed
        self.pairs_per_call = pairs_per_call

    @property
    @abstractmethod
    def name(self) -> str:
        """What the ledger calls it."""

    @abstractmethod
    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """The steps of this round.

        Args:
            index: (B,) positions of a batch in the data set, on the CPU.
            num_examples: size of the data set.
            chain: the chain that is measured.
        """

    def again(self, accumulator: BoundAccumulator, unit: Unit) -> bool:
        """Learn from the round that ended, and say whether another one is wanted.

        Args:
            accumulator: all rounds so far, of all ranks.
            unit: in which the target is given.
        """
        return False

    @property
    def rounds(self) -> int:
        """Rounds of the measurement so far, this one included; 0 during a pilot, which is forgotten."""
        return 1

    def measure(
        self,
        accumulators: Sequence[BoundAccumulator],
        variants: Sequence[BoundVariant],
        denoise: Denoise,
        x0: Tensor,
        index: Tensor,
        label: Tensor | None,
        num_examples: int,
    ) -> None:
        """Evaluate a batch once, and add what each variant makes of it to its accumulator.

        Args:
            accumulators: receive the terms, one for each variant.
            variants: what is measured, on one and the same chain.
            denoise: maps (x_t, level, label) to a prediction.
            x0: (B, ...) data.
            index: (B,) position of each example in the data set.
            label: (B,) class labels or None.
            num_examples: size of the whole data set.
        """
        chain = variants[0].bound.chain
        assignment = self.assign(index.cpu(), num_examples, chain)
        steps, weights = assignment.steps.to(x0.device), assignment.weights.to(x0.device)
        noise = ExampleNoise(self.seed, f"bound, round {self.rounds}", index, x0)
        at_once = max(1, self.pairs_per_call // len(x0))
        columns = [score(variants, denoise, x0, label, noise, part) for part in steps.split(at_once, dim=1)]
        for i, (accumulator, variant) in enumerate(zip(accumulators, variants, strict=True)):
            nats = torch.cat([column.nats[i] for column in columns], dim=1)
            weighted = weights * nats.double()
            draws = Draws(
                steps=steps,
                weights=weights,
                nats=nats,
                prior=variant.bound.prior(x0),
                errors=torch.cat([column.errors[i] for column in columns], dim=1),
                fractions=_joined([column.fractions for column in columns]),
                monte_carlo=(
                    variance_of_sum(weighted[:, :2]),
                    self.chance(steps[:, 2:], nats[:, 2:].double(), weighted[:, 2:]),
                ),
            )
            accumulator.add(draws, index)

    @abstractmethod
    def chance(self, steps: Tensor, nats: Tensor, weighted: Tensor) -> Tensor:
        """How much of an example's sum of L_t is chance: its variance, (B,); NaN where it is not known.

        Args:
            steps: (B, R - 2), the steps after the draws of L_0.
            nats: (B, R - 2) their terms, float64.
            weighted: (B, R - 2), which add up to the estimate.
        """

    def shortfall(self, estimate: BoundEstimate, unit: Unit) -> str | None:
        """What was wanted of the estimate and not reached, in one sentence; None if all was."""
        return None


def variance_of_sum(parts: Tensor) -> Tensor:
    """How much of the sum of independent, equally distributed parts (B, R) is chance: its variance, (B,)."""
    R = parts.shape[1]
    if R < 2:  # nothing to add up has no variance; of a single part it cannot be told
        return parts.new_full((len(parts),), 0.0 if R == 0 else torch.nan)
    return R * parts.var(dim=1)


def first_two(steps: Tensor, weights: Tensor) -> Assignment:
    """Put two draws of L_0, weight 1/2 each, before draws of L_t, steps and weights (B, R)."""
    ones = torch.ones(len(steps), 2)
    return Assignment(
        steps=torch.cat([ones.long(), steps], dim=1),
        weights=torch.cat([0.5 * ones.double(), weights], dim=1),
    )


@dataclass(frozen=True)
class Scores:
    """What came of R evaluations of each of B examples, under S variants.

    Attributes:
        nats: (S, B, R) the bound's terms.
        errors: (S, B, R) mean squared error of x0_hat, as it is scored, per dimension.
        fractions: (B, R) where a learned variance lies between its limits; None for a fixed one.
    """

    nats: Tensor
    errors: Tensor
    fractions: Tensor | None


def score(
    variants: Sequence[BoundVariant],
    denoise: Denoise,
    x0: Tensor,
    label: Tensor | None,
    noise: ExampleNoise,
    steps: Tensor,
) -> Scores:
    """Evaluate the network once, at steps (B, R) of each example."""
    rows = steps.shape[1]
    eps = torch.stack([noise.draw() for _ in range(rows)], dim=1).flatten(0, 1)
    x0 = x0.repeat_interleave(rows, dim=0)
    label = None if label is None else label.repeat_interleave(rows)
    step = variants[0].bound.chain.step(steps.flatten())
    prediction = denoise(diffuse(x0, eps, step.t), step.t, label)
    nats = [variant.term(step, x0, prediction) for variant in variants]
    errors = [mean_per_example((x0 - variant.bound.x0_hat(prediction)).square()) for variant in variants]
    fraction = prediction.fraction
    return Scores(
        nats=torch.stack(nats).view(len(variants), -1, rows),
        errors=torch.stack(errors).view(len(variants), -1, rows),
        fractions=None if fraction is None else mean_per_example(fraction).view(-1, rows),
    )


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    present = [column for column in columns if column is not None]
    return torch.cat(present, dim=1) if present else None
