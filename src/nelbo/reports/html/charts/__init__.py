"""The charts: one question a file, each a function from the runs of the page to a card.

``differences`` also takes the differences of the runs from the first one.
"""

from nelbo.reports.html.charts.chain import chain
from nelbo.reports.html.charts.classes import classes
from nelbo.reports.html.charts.differences import differences
from nelbo.reports.html.charts.gap import gap
from nelbo.reports.html.charts.heat_map import heat_map
from nelbo.reports.html.charts.learned_variance import learned_variance
from nelbo.reports.html.charts.rate_distortion import rate_distortion
from nelbo.reports.html.charts.shares import shares
from nelbo.reports.html.charts.speed import speed
from nelbo.reports.html.charts.training import training

CHARTS = (
    training,
    chain,
    shares,
    heat_map,
    gap,
    rate_distortion,
    learned_variance,
    classes,
    speed,
)

__all__ = ["CHARTS", "differences"]
