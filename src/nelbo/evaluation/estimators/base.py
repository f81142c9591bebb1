"""Bound estimators: which terms of which examples are evaluated, and how they add up to the bound."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.level import mean_per_example
from nelbo.diffusion.process import diffuse
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.tally import BoundTally
from nelbo.evaluation.units import Unit


@dataclass(frozen=True)
class Assignment:
    """Which steps of the chain are evaluated for each example of a batch.

    The first two columns are two draws of L_0. The others are in the order of the chain and cover it, one
    draw for each of R - 2 neighbouring ranges, so that the spread between neighbours shows how much of an
    estimate is chance.

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
        pairs_per_call: how many pairs of example and timestep one call of the network takes.
    """

    needs_rounds: bool = False

    def __init__(self, seed: int = 0, pairs_per_call: int = 512) -> None:
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

    def again(self, tally: BoundTally, unit: Unit) -> bool:
        """Learn from the round that ended, and say whether another one is wanted.

        Args:
            tally: all rounds so far, of all ranks.
            unit: in which the target is given.
        """
        return False

    @property
    def rounds(self) -> int:
        """Rounds that the tally holds so far."""
        return 1

    def measure(
        self,
        tally: BoundTally,
        bound: VariationalBound,
        denoise: Denoise,
        x0: Tensor,
        index: Tensor,
        label: Tensor | None,
        num_examples: int,
    ) -> None:
        """Evaluate a batch and add it to the tally.

        Args:
            tally: receives the terms.
            bound: what is measured.
            denoise: maps (x_t, level, label) to a prediction.
            x0: (B, ...) data.
            index: (B,) position of each example in the data set.
            label: (B,) class labels or None.
            num_examples: size of the whole data set.
        """
        assignment = self.assign(index.cpu(), num_examples, bound.chain)
        steps, weights = assignment.steps.to(x0.device), assignment.weights.to(x0.device)
        noise = ExampleNoise(self.seed, f"bound, round {self.rounds}", index, x0)
        at_once = max(1, self.pairs_per_call // len(x0))
        columns = steps.split(at_once, dim=1)
        pairs = torch.cat([score(bound, denoise, x0, label, noise, column) for column in columns], dim=2)
        nats, error = pairs
        tally.add_terms(steps.flatten(), nats.flatten(), error.flatten())
        weighted = weights * nats.double()
        reconstruction, denoising = weighted[:, :2], weighted[:, 2:]
        tally.add_examples(
            reconstruction=reconstruction.sum(1),
            denoising=denoising.sum(1),
            prior=bound.prior(x0),
            monte_carlo=(variance_of_sum(reconstruction), variance_of_sum(denoising)),
            index=index,
        )


def variance_of_sum(parts: Tensor) -> Tensor:
    """How much of the sum over neighbouring parts (B, R) is chance: its variance, (B,).

    Half the squared differences between neighbours, as for systematic samples: what neighbours do not have
    in common counts as chance, so the estimate errs on the large side (Wolter 2007, section 8.2).
    """
    R = parts.shape[1]
    if R < 2:  # nothing to add up has no variance; of a single part it cannot be told
        return parts.new_full((len(parts),), 0.0 if R == 0 else torch.nan)
    return 0.5 * R / (R - 1) * parts.diff(dim=1).square().sum(1)


def first_two(steps: Tensor, weights: Tensor) -> Assignment:
    """Put two draws of L_0, weight 1/2 each, before draws of L_t."""
    ones = torch.ones(len(steps), 2)
    return Assignment(
        steps=torch.cat([ones.long(), steps], dim=1),
        weights=torch.cat([0.5 * ones.double(), weights], dim=1),
    )


def score(
    bound: VariationalBound,
    denoise: Denoise,
    x0: Tensor,
    label: Tensor | None,
    noise: ExampleNoise,
    steps: Tensor,
) -> Tensor:
    """Evaluate the network once, at steps (B, R) of each example.

    Returns:
        (2, B, R): the bound's terms in nats, and the mean squared error of x0_hat per dimension.
    """
    rows = steps.shape[1]
    eps = torch.stack([noise.draw() for _ in range(rows)], dim=1).flatten(0, 1)
    x0 = x0.repeat_interleave(rows, dim=0)
    label = None if label is None else label.repeat_interleave(rows)
    step = bound.chain.step(steps.flatten())
    prediction = denoise(diffuse(x0, eps, step.t), step.t, label)
    error = mean_per_example((x0 - bound.x0_hat(prediction)).square())
    return torch.stack([bound.term(step, x0, prediction), error]).view(2, -1, rows)
