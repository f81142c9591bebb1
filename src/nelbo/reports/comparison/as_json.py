"""A comparison as plain values, for other programs."""

import math
from typing import Any

from nelbo.reports.comparison.compare import Compared, Comparison
from nelbo.reports.comparison.differences import figure


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that is printed, and the ledgers; figures in the unit of each run, None where not known."""
    first = comparison.runs[0]
    return {
        "incomparable": list(comparison.incomparable),
        "remarks": list(comparison.remarks),
        "runs": [_run(compared) for compared in comparison.runs],
        "differences": [
            {
                "run": compared.name,
                "from": first.name,
                "paired": compared.differences.is_paired,
                "parts": {
                    name: {
                        "mean": _known(part.mean),
                        "stderr": _known(part.stderr),
                        "beyond_two_standard_errors": part.is_clear,
                    }
                    for name, part in compared.differences.parts.items()
                },
            }
            for compared in comparison.runs
            if compared.differences is not None
        ],
    }


def _run(compared: Compared) -> dict[str, Any]:
    run = compared.run
    parts = {"total": run.unit.metric, "L_0": "L_0", "L_t": "L_t", "L_T": "L_T"}
    figures = {name: figure(run, metric) for name, metric in parts.items()}
    return {
        "name": compared.name,
        "folder": str(run.path),
        "split": run.held_out,
        "unit": run.unit.label,
        "bound": {
            name: {"mean": _known(found.mean), "stderr": _known(found.stderr)}
            for name, found in figures.items()
        },
        "choices": compared.choices,
        "ledger": run.ledger,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
