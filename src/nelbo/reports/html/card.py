"""A card of the page: a chart with title and caption."""

from dataclasses import dataclass

import plotly.graph_objects as go

from nelbo.reports.html.style import has_traces

Views = dict[str, go.Figure]


@dataclass(frozen=True)
class Card:
    """A chart with title and caption, or one line that says why it is not shown.

    The page escapes all text except ``Markup``, which is used for constants only (L<sub>t</sub>).

    Attributes:
        key: id in the page.
        title: heading.
        caption: how to read it.
        views: figures by label; those without traces are not shown.
        needs: what is missing if no view is shown, to complete "not shown: needs ..."; None if these runs
            cannot have the chart, which is then not mentioned.
    """

    key: str
    title: str
    caption: str
    views: Views
    needs: str | None

    @property
    def shown(self) -> Views:
        """The views with traces."""
        return {label: view for label, view in self.views.items() if has_traces(view)}
