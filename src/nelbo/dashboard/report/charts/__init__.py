"""The charts: one question a file, each a function from the runs of the page to a card."""

from nelbo.dashboard.report.charts.chain import chain
from nelbo.dashboard.report.charts.classes import classes
from nelbo.dashboard.report.charts.differences import differences
from nelbo.dashboard.report.charts.gap import gap
from nelbo.dashboard.report.charts.heat_map import heat_map
from nelbo.dashboard.report.charts.learned_variance import learned_variance
from nelbo.dashboard.report.charts.rate_distortion import rate_distortion
from nelbo.dashboard.report.charts.shares import shares
from nelbo.dashboard.report.charts.speed import speed
from nelbo.dashboard.report.charts.training import training

CHARTS = (
    differences,
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

__all__ = ["CHARTS"]
