"""A card of the page: a chart with a title and a sentence, or one line that says why it is not there."""

from dataclasses import dataclass

import plotly.graph_objects as go

from nelbo.reports.html.style import has_traces

Views = dict[str, go.Figure]


@dataclass(frozen=True)
class Card:
    """What the page shows of one question.

    The page escapes every text that is not ``Markup``, which only our own constants are (L<sub>t</sub>).

    Attributes:
        key: names it in the page, and in tests.
        title: the question.
        caption: how to read it.
        views: figures by label; those in which nothing is drawn are left out.
        needs: what is missing when there is none, to complete "not shown: needs ..."; None for what these
            runs cannot have, which is left out without a word.
    """

    key: str
    title: str
    caption: str
    views: Views
    needs: str | None

    @property
    def shown(self) -> Views:
        """The views in which something is drawn."""
        return {label: view for label, view in self.views.items() if has_traces(view)}
