"""The result of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.evaluation.image_codecs import CodedSize
from nelbo.evaluation.ledger import Ledger
from nelbo.evaluation.likelihoods import MeasuredLikelihood
from nelbo.evaluation.measure import Measurement
from nelbo.evaluation.units import Unit


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        split: the evaluated split.
        unit: unit of the results.
        chain: the diffusion chain.
        measurements: the bound with the chosen variance, then with the other variances.
        ledgers: one for each measurement.
        checkpoint: file of the model.
        step: optimizer steps of its training, None if the checkpoint has none.
        config: configuration of its training.
        label: (N,) class of each example, None for data without classes.
        class_names: name of each class, None for classes without names.
        shortfall: sentence about a target that the measurement missed; None if it missed none.
        likelihoods: measured on the same examples as the bound, by name.
        on_samples: likelihoods of samples of the model, by name.
        baselines: size of the same examples in image formats, by name.
    """

    split: str
    unit: Unit
    chain: StepSequence
    measurements: list[Measurement]
    ledgers: list[Ledger]
    checkpoint: Path
    step: int | None
    config: dict[str, Any]
    label: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    shortfall: str | None = None
    likelihoods: Mapping[str, MeasuredLikelihood] = field(default_factory=dict)
    on_samples: Mapping[str, MeasuredLikelihood] = field(default_factory=dict)
    baselines: Mapping[str, CodedSize] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the bound with the chosen variance, by name."""
        return self.unit.metrics(self.split, self.measurements[0].estimate)
