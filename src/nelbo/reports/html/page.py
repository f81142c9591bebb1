"""The page: one self-contained HTML file that needs no network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from nelbo.evaluation.ledger import MUST_AGREE
from nelbo.reports.comparison.compare import differences_from_first
from nelbo.reports.comparison.named_run import incomparable, ledger_rows, shared_label
from nelbo.reports.comparison.seeds import group_by_seed
from nelbo.reports.html.advice import advise
from nelbo.reports.html.card import Card
from nelbo.reports.html.charts import CHARTS, differences
from nelbo.reports.html.charts.seeds import seeds
from nelbo.reports.html.entry import Entry, make_entries, was_trained
from nelbo.reports.html.headline import facts, headline
from nelbo.reports.html.samples import strips
from nelbo.reports.html.tables import (
    baseline_rows,
    likelihood_rows,
    run_rows,
    sample_rows,
    seed_rows,
    variance_rows,
)
from nelbo.runs.run_folder import Run
from nelbo.text import printable_lines

ASSETS = files("nelbo.reports.html") / "assets"


@dataclass(frozen=True)
class Watch:
    """A page that is served and refreshed while its runs train.

    Attributes:
        version: of the content; the page asks the server for it.
        notices: shown at the top.
    """

    version: str
    notices: Sequence[str] = ()


def render(runs: Sequence[Run], watch: Watch | None = None) -> str:
    """The page of one run, or of several runs side by side.

    Args:
        runs: of the page.
        watch: for a page that is refreshed; None for a file.
    """
    entries = make_entries(runs)
    from_first = differences_from_first(entries)
    groups = group_by_seed(entries)
    cards = [differences(entries, from_first), *(chart(entries) for chart in CHARTS)]
    cards += [seeds(groups)] if groups else []
    rows = run_rows(entries, from_first) if len(entries) > 1 else []
    scripts = [plotly.offline.get_plotlyjs(), _asset("page.js")]
    if watch is not None:
        scripts.append(_asset("watch.js"))
    return _render_template(
        "page.html",
        scripts,
        watch=watch,
        entries=entries,
        title=" · ".join(entry.name for entry in entries[:4]),
        unit=shared_label(entries),
        headline=headline(entries[0]) if len(entries) == 1 else None,
        facts=facts(entries[0].run),
        rows=rows,
        named_by_choices=all("=" in row.entry.name and not row.choices for row in rows),
        groups=seed_rows(groups),
        seeds_differ=len({entry.run.config.get("seed") for entry in entries}) > 1,
        incomparable=incomparable(entries) if len(entries) > 1 else [],
        some_comparable=any(from_first),
        advice=_advice(entries),
        cards={card.key: card for card in cards},
        strips=strips(entries),
        likelihoods=likelihood_rows(entries),
        on_samples=sample_rows(entries),
        baselines=baseline_rows(entries),
        variances=variance_rows(entries),
        trained=was_trained(entries),
        absent=_absent(cards, has_samples=any(e.run.samples for e in entries) or not was_trained(entries)),
        ledger=ledger_rows(entries),
        must_agree=MUST_AGREE,
        figures=htmlsafe_json_dumps(_figures(cards), separators=(",", ":")),
    )


def render_waiting(watch: Watch) -> str:
    """The page of runs without results."""
    return _render_template("waiting.html", [_asset("watch.js")], watch=watch)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("nelbo.reports.html", "assets"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render_template(name: str, scripts: Sequence[str], **values: Any) -> str:
    return (
        _templates()
        .get_template(name)
        .render(
            style=Markup(_asset("page.css")),
            scripts=[Markup(script) for script in scripts],
            script_sources=Markup(" ".join(map(_source, scripts))),
            **values,
        )
    )


def _advice(entries: Sequence[Entry]) -> dict[str, list[tuple[str, str]]]:
    """What was found, as (name of the run, sentence), by what to change: one box for all runs."""
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        for advice in advise(entry.run):
            found.setdefault(advice.change, []).append((entry.name, advice.found))
    return found


def _absent(cards: Sequence[Card], has_samples: bool) -> list[tuple[str, str]]:
    """Titles of the cards that are not shown, and what they need."""
    absent = [(card.title, card.needs) for card in cards if not card.shown and card.needs is not None]
    return absent if has_samples else [*absent, ("Samples", "samples/step_*.png")]


def _shown(value: Any) -> Any:
    """Make a value of the template printable; jinja then escapes it unless it is Markup."""
    return value if isinstance(value, Markup) else printable_lines(value)


def _source(script: str) -> str:
    """Hash of a script for the content security policy of the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _figures(cards: Sequence[Card]) -> dict[str, dict[str, Any]]:
    """The plotly figures as plain values, by card and view."""
    return {
        card.key: {label: json.loads(str(view.to_json())) for label, view in card.shown.items()}
        for card in cards
        if card.shown
    }


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")
