"""Units: nats inside, and what people read outside.

The bound of discrete data is a code length, read in bits per dimension; that of continuous data bounds a
differential entropy and is read in nats.
"""

import math
from dataclasses import dataclass

from nelbo.evaluation.accumulator import BoundEstimate


@dataclass(frozen=True)
class Unit:
    """How a bound is named and scaled for people.

    Attributes:
        metric: name of the total, ``bpd`` or ``nelbo``.
        label: of axes and tables.
        per_nat: what one nat per example is worth.
    """

    metric: str
    label: str
    per_nat: float

    @property
    def is_code_length(self) -> bool:
        """Whether all parts are positive and have a share in the total, as those of a density need not."""
        return self.metric == "bpd"

    def metrics(self, split: str, estimate: BoundEstimate) -> dict[str, float]:
        """Flat metrics of an estimate: ``split/bpd``, ``split/L_0``, ``split/L_t``, ``split/L_T``, errors."""
        names = {
            self.metric: estimate.total,
            "L_0": estimate.reconstruction,
            "L_t": estimate.denoising,
            "L_T": estimate.prior,
        }
        values = {f"{split}/{name}": part.mean * self.per_nat for name, part in names.items()}
        errors = {f"{split}/{name}_stderr": part.stderr * self.per_nat for name, part in names.items()}
        for name, part in names.items():
            if part.mc_stderr is not None and part.data_stderr is not None:
                errors[f"{split}/{name}_stderr_monte_carlo"] = part.mc_stderr * self.per_nat
                errors[f"{split}/{name}_stderr_data_set"] = part.data_stderr * self.per_nat
        return values | errors


def unit_of(dims: int, levels: int | None) -> Unit:
    """The unit of data with ``dims`` dimensions and ``levels`` levels (None: continuous)."""
    if levels is None:
        return Unit(metric="nelbo", label="nats", per_nat=1.0)
    return Unit(metric="bpd", label="bits/dim", per_nat=1.0 / (dims * math.log(2)))
