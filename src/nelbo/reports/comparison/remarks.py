"""Remarks on a comparison: how the runs were measured, and what follows for their differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nelbo.reports.comparison.named_run import NamedRun
from nelbo.text import printable

Ledger = Mapping[str, Any]


def remarks(runs: Sequence[NamedRun]) -> list[str]:
    """How to interpret the differences from the first run, one line for each remark.

    Args:
        runs: comparable runs; the first is the baseline.
    """
    found: list[str] = []
    without_examples = [named.name for named in runs if named.run.examples is None]
    if without_examples:
        found.append(_unpaired(runs, without_examples))
    if len(runs) - len(without_examples) > 1 and runs[0].name not in without_examples:
        found.append(_paired(runs))
    return [*found, *_levels(runs), *_steps(runs), *_seeds(runs)]


def _unpaired(runs: Sequence[NamedRun], without_examples: Sequence[str]) -> str:
    have = "has" if len(without_examples) == 1 else "have"
    which = "all differences are" if runs[0].name in without_examples or len(runs) == 2 else "differences are"
    return (
        f"{', '.join(without_examples)} {have} no examples.parquet: {which} unpaired, the squared errors of "
        "both means are added, and the errors in bins of t are unknown."
    )


def _paired(runs: Sequence[NamedRun]) -> str:
    """Whether noise and timesteps are the same in all runs."""
    reasons = [
        *_differing(runs, "estimator", lambda ledger: str(ledger.get("estimator")).partition(",")[0]),
        *_differing(runs, "seed", lambda ledger: ledger.get("seed")),
        *_differing(runs, "steps", lambda ledger: ledger.get("K")),
    ]
    if not reasons and _differing(runs, "", lambda ledger: ledger.get("timesteps")):
        reasons = ["different timesteps"]
    if not reasons and str(runs[0].run.ledger.get("estimator")).startswith("importance"):
        reasons = ["importance draws timesteps by the model's own terms"]
    if not reasons and _differing(runs, "", lambda ledger: ledger.get("estimator")):
        reasons = ["different numbers of evaluations per example"]
    if not reasons:
        return "Paired by example, noise and timestep: most of the Monte Carlo error cancels."
    return (
        f"Paired by example, but noise and timesteps are not all the same ({'; '.join(reasons)}): "
        "the Monte Carlo error cancels in part, and the errors include the rest."
    )


def _levels(runs: Sequence[NamedRun]) -> list[str]:
    """Whether the noise level at t is the same in all runs."""
    differing = [
        *_differing(runs, "schedule", lambda ledger: ledger.get("schedule")),
        *_differing(runs, "T", lambda ledger: ledger.get("T")),
    ]
    if not differing and all(_is_full(named.run.ledger) for named in runs):
        differing = _differing(runs, "logsnr", _ends)
    if not differing:
        return []
    return [f"The noise level at a given t differs ({'; '.join(differing)}), and so do the bins of t."]


def _steps(runs: Sequence[NamedRun]) -> list[str]:
    """Whether the steps of the chain are the same in all runs."""
    differ = _differing(runs, "", lambda ledger: ledger.get("timesteps"))
    if not differ or all(_is_full(named.run.ledger) for named in runs):
        return []
    differing = [
        *_differing(runs, "steps", lambda ledger: ledger.get("K")),
        *_differing(runs, "first t", _first_t),
    ]
    return [
        f"The chains differ ({'; '.join(differing) or 'different timesteps'}): "
        "a step counts in the bin of its noisier end, and the first step is L_0."
    ]


def _seeds(runs: Sequence[NamedRun]) -> list[str]:
    """Whether training seeds differ, so that a difference between two runs includes that of their seeds."""
    seeds = {named.run.config.get("seed") for named in runs}
    if None in seeds or len(seeds) == 1:
        return []
    return [
        "The runs were trained with different seeds: differences and their errors are of their two runs "
        "alone, and other seeds give others."
    ]


def _differing(runs: Sequence[NamedRun], what: str, value: Callable[[Ledger], Any]) -> list[str]:
    """``what: A C x, B y`` where the values differ, else nothing."""
    values = [value(named.run.ledger) for named in runs]
    if all(found == values[0] for found in values):
        return []
    who: dict[Any, list[str]] = {}
    for named, found in zip(runs, values, strict=True):
        who.setdefault(found, []).append(named.name)
    return [f"{what}: " + ", ".join(f"{' '.join(names)} {printable(found)}" for found, names in who.items())]


def _is_full(ledger: Ledger) -> bool:
    return ledger.get("K") == ledger.get("T")


def _ends(ledger: Ledger) -> str | None:
    if not {"logsnr_max", "logsnr_min"} <= ledger.keys():
        return None
    return f"{ledger['logsnr_max']:.4g} to {ledger['logsnr_min']:.4g}"


def _first_t(ledger: Ledger) -> str:
    return str(ledger.get("timesteps", "1")).partition(" ")[0].partition("..")[0]
