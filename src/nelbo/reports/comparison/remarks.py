"""What to know before reading a difference: what the runs have in common besides the data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nelbo.reports.comparison.named import NamedRun
from nelbo.text import printable

Ledger = Mapping[str, Any]


def remarks(runs: Sequence[NamedRun], without_examples: Sequence[str]) -> list[str]:
    """A line for each thing to know.

    Args:
        runs: whose ledgers agree in what was measured; the first is what the others are compared with.
        without_examples: names of those that have no bound of each example.
    """
    found: list[str] = []
    if without_examples:
        found.append(_unpaired(runs, without_examples))
    if len(runs) - len(without_examples) > 1 and runs[0].name not in without_examples:
        found.append(_chance(runs))
    return [*found, *_levels(runs), *_steps(runs)]


def _unpaired(runs: Sequence[NamedRun], without_examples: Sequence[str]) -> str:
    have = "has" if len(without_examples) == 1 else "have"
    which = "all differences are" if runs[0].name in without_examples or len(runs) == 2 else "differences are"
    return (
        f"{', '.join(without_examples)} {have} no examples.parquet: {which} unpaired, with the errors of "
        "both means added in squares, and of a decade the error is not known."
    )


def _chance(runs: Sequence[NamedRun]) -> str:
    """Whether noise and timesteps are the same for all."""
    reasons = [
        *_differing(runs, "estimator", lambda ledger: str(ledger.get("estimator")).partition(",")[0]),
        *_differing(runs, "seed", lambda ledger: ledger.get("seed")),
        *_differing(runs, "steps", lambda ledger: ledger.get("K")),
    ]
    if not reasons and _differing(runs, "", lambda ledger: ledger.get("timesteps")):
        reasons = ["other timesteps"]
    if not reasons and str(runs[0].run.ledger.get("estimator")).startswith("importance"):
        reasons = ["importance draws timesteps by the model's own terms"]
    if not reasons and _differing(runs, "", lambda ledger: ledger.get("estimator")):
        reasons = ["not as many evaluations per example"]
    if not reasons:
        return "Paired by example, noise and timestep: most of the chance cancels in the differences."
    return (
        f"Paired by example, but noise and timesteps are not all the same ({'; '.join(reasons)}): "
        "chance cancels in part, and the errors hold the rest."
    )


def _levels(runs: Sequence[NamedRun]) -> list[str]:
    """Whether t means the same for all."""
    differing = [
        *_differing(runs, "schedule", lambda ledger: ledger.get("schedule")),
        *_differing(runs, "T", lambda ledger: ledger.get("T")),
    ]
    if not differing and all(_is_full(named.run.ledger) for named in runs):
        differing = _differing(runs, "logsnr", _ends)
    if not differing:
        return []
    return [f"The same t is another noise level ({'; '.join(differing)}), and so are the t_bins."]


def _steps(runs: Sequence[NamedRun]) -> list[str]:
    """Whether a step goes equally far for all."""
    differ = _differing(runs, "", lambda ledger: ledger.get("timesteps"))
    if not differ or all(_is_full(named.run.ledger) for named in runs):
        return []
    differing = [
        *_differing(runs, "steps", lambda ledger: ledger.get("K")),
        *_differing(runs, "first t", _first_t),
    ]
    return [
        f"The chains differ ({'; '.join(differing) or 'other timesteps'}): "
        "a step counts in the decade of its noisier end, and the first step is L_0."
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
