"""The ledgers of several runs beside each other, and whether their figures may be compared at all."""

from collections.abc import Sequence

from nelbo.evaluation.ledger import disagreements
from nelbo.reports.comparison.named import NamedRun
from nelbo.reports.numbers import cell


def incomparable(runs: Sequence[NamedRun]) -> list[str]:
    """Sentences that say why figures may not be compared; none if they may."""
    found = [
        f"{name}: " + ", ".join(f"{r.name} {cell(r.run.ledger[name])}" for r in runs if name in r.run.ledger)
        for name in disagreements([named.run.ledger for named in runs])
    ]
    without = [named.name for named in runs if not named.run.ledger]
    if without:
        found.append(f"not known, for want of a ledger: {', '.join(without)}")
    return found


def ledger_rows(runs: Sequence[NamedRun]) -> list[tuple[str, list[str], bool]]:
    """Rows of the ledger: name, value in each run, whether they differ."""
    found = [named.run.ledger for named in runs]
    names = list(dict.fromkeys(name for ledger in found for name in ledger))
    return [
        (
            name,
            [cell(ledger[name]) if name in ledger else "–" for ledger in found],
            any(ledger.get(name) != found[0].get(name) for ledger in found),
        )
        for name in names
    ]
