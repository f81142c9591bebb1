"""Units of a reported bound; everything is computed in nats.

The bound of discrete data is a code length, reported in bits per dimension; that of continuous data bounds a
differential entropy and is reported in nats.
"""

import math
from dataclasses import dataclass

from nelbo.evaluation.accumulator import BoundEstimate, Estimate

PARTS = {"L_0": "reconstruction", "L_t": "denoising", "L_T": "prior"}  # symbols and fields of BoundParts
PIXELS_PER_UNIT = 127.5  # from [-1, 1] to [0, 255]


@dataclass(frozen=True)
class Unit:
    """Name and scale of a reported bound.

    Attributes:
        metric: name of the total, ``bpd`` or ``nelbo``.
        label: of axes and tables.
        per_nat: value of one nat per example in this unit.
    """

    metric: str
    label: str
    per_nat: float

    @property
    def is_discrete(self) -> bool:
        """Whether the bound is a code length: all parts are positive, so that shares of it are defined."""
        return self.metric == "bpd"

    def metrics(self, split: str, estimate: BoundEstimate) -> dict[str, float]:
        """Metrics ``split/bpd``, ``split/L_0``, ``split/L_t``, ``split/L_T``, and their standard errors."""
        parts = {name: getattr(estimate, field) for name, field in PARTS.items()}
        names: dict[str, Estimate] = {self.metric: estimate.total} | parts
        values = {f"{split}/{name}": part.mean * self.per_nat for name, part in names.items()}
        errors = {f"{split}/{name}_stderr": part.stderr * self.per_nat for name, part in names.items()}
        for name, part in names.items():
            if part.mc_stderr is not None and part.data_stderr is not None:
                errors[f"{split}/{name}_stderr_monte_carlo"] = part.mc_stderr * self.per_nat
                errors[f"{split}/{name}_stderr_data_set"] = part.data_stderr * self.per_nat
        return values | errors


def unit_of(dims: int, levels: int | None) -> Unit:
    """Bits/dim of data with ``dims`` dimensions and ``levels`` levels; nats for continuous data (None)."""
    if levels is None:
        return Unit(metric="nelbo", label="nats", per_nat=1.0)
    return Unit(metric="bpd", label="bits/dim", per_nat=1.0 / (dims * math.log(2)))
