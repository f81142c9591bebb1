"""Bound estimators: which terms of which examples are evaluated, and how they add up to the bound."""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.evaluation.tally import BoundTally


class BoundEstimator(ABC):
    """Measures the bound of a data set, batch by batch.

    Noise and timesteps are functions of the seed and of the example's position in its data set, so a
    result depends neither on the batch size nor on the number of processes.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    @abstractmethod
    def name(self) -> str:
        """What the ledger calls it."""

    @abstractmethod
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
