"""The page: everything put into one HTML file that opens from disk with no network."""

import json
from collections.abc import Sequence
from importlib.resources import files

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nelbo.dashboard.comparison.ledgers import incomparable, ledger_rows
from nelbo.dashboard.comparison.named import shared_label
from nelbo.dashboard.report.advice import advise
from nelbo.dashboard.report.card import Card
from nelbo.dashboard.report.charts import CHARTS
from nelbo.dashboard.report.comparison import rows
from nelbo.dashboard.report.entry import make_entries, was_trained
from nelbo.dashboard.report.headline import facts, headline
from nelbo.dashboard.report.samples import strips
from nelbo.dashboard.report.variances import variance_rows
from nelbo.dashboard.run_folder import Run

ASSETS = files("nelbo.dashboard.report") / "assets"


def render(runs: Sequence[Run]) -> str:
    """The page of one run, or of several beside each other."""
    entries = make_entries(runs)
    cards = [chart(entries) for chart in CHARTS]
    environment = Environment(
        loader=PackageLoader("nelbo.dashboard.report", "assets"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["trusted"] = Markup  # our own titles and captions, which have sub- and superscripts
    return environment.get_template("page.html").render(
        entries=entries,
        title=" · ".join(entry.name for entry in entries[:4]),
        unit=shared_label(entries),
        headline=headline(entries[0]) if len(entries) == 1 else None,
        facts=facts(entries[0].run),
        rows=rows(entries) if len(entries) > 1 else [],
        incomparable=incomparable(entries) if len(entries) > 1 else [],
        advice=[(entry, advise(entry.run)) for entry in entries],
        cards={card.key: card for card in cards},
        strips=strips(entries),
        variances=variance_rows(entries),
        trained=was_trained(entries),
        absent=_absent(cards, has_samples=any(e.run.samples for e in entries) or not was_trained(entries)),
        ledger=ledger_rows(entries),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup(plotly.offline.get_plotlyjs()),
        figures=Markup(_figures(cards)),
    )


def _absent(cards: Sequence[Card], has_samples: bool) -> list[tuple[str, str]]:
    """Titles of what could not be drawn, and what it needs."""
    absent = [(card.title, card.needs) for card in cards if not card.shown and card.needs is not None]
    return absent if has_samples else [*absent, ("Samples", "samples/step_*.png")]


def _figures(cards: Sequence[Card]) -> str:
    """All figures as JSON, by card and view, safe inside a script element."""
    drawn = {
        card.key: {label: json.loads(str(view.to_json())) for label, view in card.shown.items()}
        for card in cards
        if card.shown
    }
    return json.dumps(drawn, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text()
