"""Drawing functions of the notebooks: style, small images, and the charts of the report as static figures."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from nelbo.reports.html.style import PART_COLOURS, RUN_COLOURS, T_BIN_COLOURS

__all__ = ["COLOURS", "DEPTHS", "GREY", "INK", "PARTS", "draw", "images", "panels", "trials"]

COLOURS, PARTS, DEPTHS = RUN_COLOURS, PART_COLOURS, T_BIN_COLOURS  # those of the report
GREY, INK = "#8b95a5", "#2b3440"
RGBA = re.compile(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)")
MARKERS = {"circle": "o", "diamond": "D", "circle-open": "o"}

plt.rcParams |= {
    "figure.dpi": 96,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ee",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
}


def _png(figure: Figure) -> bytes:
    """PNG with few colours, which keeps the committed notebooks small."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight", facecolor="white")
    if figure.findobj(QuadMesh):  # a colour map needs all colours
        return full.getvalue()
    image = Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


_shell = get_ipython()
if _shell is not None:
    _shell.run_line_magic("matplotlib", "inline")
    _shell.display_formatter.formatters["image/png"].for_type(Figure, _png)  # pyright: ignore[reportAttributeAccessIssue]


def panels(columns: int = 1, height: float = 2.7, width: float = 8.6, rows: int = 1, **options: Any) -> Any:
    """Adjacent axes, one or an array. Sizes are in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), **options)[1]


def images(axis: Axes, pictures: np.ndarray, columns: int, title: str = "") -> None:
    """Draw grey images (N, 1, H, W) in [-1, 1] in a grid, separated by white lines."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1))
    for i, picture in enumerate(pictures[:, 0]):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = -picture
    axis.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_title(title)
    axis.axis("off")


def trials(axis: Axes, names: Sequence[str], parts: Sequence[dict[str, float]], unit: str) -> None:
    """Draw one stacked bar per trial with the parts of its bound and the total at its end."""
    left = np.zeros(len(names))
    for part, colour in PARTS.items():
        values = np.array([bound[part] for bound in parts])
        label = rf"$L_{part[2:]}$" if part != "L_t" else r"$\sum L_t$"
        axis.barh(names, values, left=left, color=colour, height=0.62, label=label)
        left += values
    for row, total in enumerate(left):
        axis.text(total, row, f" {total:.3f}", va="center", fontsize=8.5)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(unit)
    axis.set_xlim(0, 1.12 * left.max())
    axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


def draw(axis: Axes, chart: Any, legend: bool = True) -> None:
    """Draw an interactive chart of the report as a static figure.

    Args:
        axis: axes to draw on.
        chart: a plotly figure: lines, bands, points, stacked areas and horizontal bars, or a heat map.
        legend: whether to draw a legend.
    """
    stacked, ends = None, {}
    for trace in chart.data:
        label = _plain(trace.name) if trace.name and trace.showlegend is not False else None
        if trace.type == "heatmap":
            limits = {"vmin": trace.zmin, "vmax": trace.zmax}
            mesh = axis.pcolormesh(trace.x, trace.y, trace.z, cmap="viridis", **limits)
            bar = plt.colorbar(mesh, ax=axis, label=_plain(trace.colorbar.title.text), pad=0.01)
            bar.set_ticks(trace.colorbar.tickvals, labels=map(_plain, trace.colorbar.ticktext))
        elif trace.type == "bar":
            left = [ends.get(y, 0.0) for y in trace.y]
            drawn = axis.barh(trace.y, trace.x, left=left, color=trace.marker.color, label=label, height=0.6)
            words = [f"{x:.0%}" if x > 0.03 else "" for x in trace.x]
            axis.bar_label(drawn, words, label_type="center", color="white", fontsize=8)
            ends |= {y: a + b for y, a, b in zip(trace.y, left, trace.x, strict=True)}
        elif trace.stackgroup:
            low = np.zeros(len(trace.x)) if stacked is None else stacked
            stacked = low + np.asarray(trace.y)
            axis.fill_between(trace.x, low, stacked, color=trace.line.color, alpha=0.8, lw=0, label=label)
        elif trace.fill == "toself":
            axis.fill(trace.x, trace.y, lw=0, color=_colour(trace.fillcolor))
        else:
            _scatter(axis, trace, label)
    for shape in chart.layout.shapes:
        across = axis.axhline if shape.y0 == shape.y1 else axis.axvline
        across(shape.y0 if shape.y0 == shape.y1 else shape.x0, color=GREY, lw=0.9, ls=_dash(shape.line.dash))
    for side in ("x", "y"):
        _axis(axis, side, chart.layout[f"{side}axis"])
    if legend and axis.get_legend_handles_labels()[0]:
        axis.legend()


def _scatter(axis: Axes, trace: Any, label: str | None) -> None:
    colour = trace.marker.color or trace.line.color
    marker = MARKERS[trace.marker.symbol or "circle"] if "markers" in trace.mode else None
    is_open = str(trace.marker.symbol).endswith("open")
    axis.errorbar(
        trace.x,
        trace.y,
        xerr=trace.error_x.array,
        yerr=trace.error_y.array,
        color=colour,
        ls="-" if "lines" in trace.mode else "",
        marker=marker,
        markersize=3 if "lines" in trace.mode else 4.5,
        markerfacecolor="none" if is_open else colour,
        elinewidth=1.2,
        label=label,
    )


def _axis(axis: Axes, side: str, layout: Any) -> None:
    setting: dict[str, Any] = {f"{side}label": _plain(layout.title.text or "")}
    if layout.type == "log":
        setting[f"{side}scale"] = "log"
    elif layout.range is not None:
        setting[f"{side}lim"] = layout.range
    elif layout.autorange == "reversed":
        axis.invert_yaxis()
    axis.set(**setting)
    which = axis.xaxis if side == "x" else axis.yaxis
    if (layout.tickformat or "").endswith("%"):
        which.set_major_formatter("{x:.0%}")
    if layout.tickvals is not None:
        shown = which.get_view_interval()
        which.set_ticks(layout.tickvals, labels=map(_plain, layout.ticktext), minor=False)
        which.set_ticks([], minor=True)
        axis.set(**{f"{side}lim": shown})  # ticks outside of the data do not widen the axis


def _plain(text: str) -> str:
    """Convert HTML with a few tags to mathtext of matplotlib."""
    text = re.sub(r"(\w+)<sub>(\w+)</sub>", r"$\1_{\2}$", text)
    text = re.sub(r"(\w+)<sup>(.+?)</sup>", r"$\1^{\2}$", text)
    return re.sub(r"<.*?>", "", text)


def _colour(text: str) -> tuple[float, ...]:
    found = RGBA.fullmatch(text)
    assert found, text
    red, green, blue, opacity = map(float, found.groups())
    return red / 255, green / 255, blue / 255, opacity


def _dash(dash: str | None) -> str:
    return "--" if dash == "dash" else "-"
