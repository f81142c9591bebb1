"""Plotly figures and their colours. The page sets the colours of text and grid, light or dark."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nelbo.evaluation.t_bins import bin_range

# middle tones, visible on white and on black
PART_COLOURS = {"L_0": "#e2953b", "L_t": "#4b87d9", "L_T": "#9b7cd1"}
GREY = "#8b95a5"
SPLIT_COLOURS = {"train": GREY, "val": "#27a08f", "test": "#d4587c"}
RUN_COLOURS = ("#4b87d9", "#e2953b", "#27a08f", "#d4587c", "#9b7cd1", "#84a23c", "#b0773f", "#55a9c4")
T_BIN_COLOURS = ("#a9cdf0", "#78acdf", "#4b87d9", "#345fa8", "#243f73")
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
FEW_POWERS = 100.0  # factor below which powers of ten are too few ticks
MOST_SINGLE_STEPS = 10  # of an axis with a tick at every step at most


def figure(x_title: str, y_title: str) -> go.Figure:
    """An empty figure."""
    axis = {"zeroline": False, "automargin": True}
    return go.Figure(
        layout={  # at once: every update of a layout takes plotly ten times as long
            "template": go.layout.Template(),
            "xaxis": {"title": {"text": x_title, "standoff": 10}, **axis},
            "yaxis": {"title": {"text": y_title, "standoff": 8}, **axis},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "tracegroupgap": 0,
            },
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "hovermode": "closest",
            "hoverlabel": {"namelength": -1},
            "dragmode": False,
        }
    )


def integer_steps(drawn: go.Figure) -> go.Figure:
    """Let no tick of x lie between two optimizer steps."""
    steps = np.concatenate([np.asarray(trace["x"], dtype=float) for trace in drawn.data] or [np.zeros(1)])  # pyright: ignore
    if np.ptp(steps) <= MOST_SINGLE_STEPS:
        drawn.update_xaxes(dtick=1, tick0=0)
    return drawn


def log_t(drawn: go.Figure, T: int) -> go.Figure:
    """Make x an axis of log t, with powers of ten."""
    ticks = _few_ticks(drawn, "x") or [10**k for k in range(len(str(T)))]
    drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:.4g}" for tick in ticks])
    return drawn


def log_y(drawn: go.Figure) -> go.Figure:
    """Make y logarithmic, with powers of ten."""
    drawn.update_yaxes(type="log", dtick=1, exponentformat="power")
    ticks = _few_ticks(drawn, "y")
    if ticks:
        drawn.update_yaxes(tickvals=ticks, ticktext=[f"{tick:.4g}" for tick in ticks])
    return drawn


def _few_ticks(drawn: go.Figure, axis: str) -> list[float]:
    """Ticks 1, 2, 5, 10, ... where the values span less than a factor of 100; else none."""
    lines: list[Any] = [trace for trace in drawn.data if trace.type == "scatter" and trace.fill is None]  # pyright: ignore
    values = np.concatenate([np.asarray(trace[axis], dtype=float) for trace in lines] or [np.ones(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values) or values.max() > FEW_POWERS * values.min():
        return []
    powers = range(int(np.floor(np.log10(values.min()))), int(np.ceil(np.log10(values.max()))) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def add_line(
    drawn: go.Figure,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    *,
    error: np.ndarray | None = None,
    positive: bool = False,
    **trace: Any,
) -> None:
    """Add a line to the figure, with a band of one standard error if it is known.

    Args:
        drawn: the figure.
        x: (n,).
        y: (n,); values that are not finite are left out.
        name: in the legend; a name from outside must be a ``plotly_text``.
        colour: of line and band.
        error: standard error of ``y``.
        positive: keep the band above 0, for a logarithmic axis.
        **trace: options of the line.
    """
    shown = np.isfinite(y) & ((y > 0) if positive else True)
    x, y = x[shown], y[shown]
    hover = "%{y:.4g}"
    if error is not None:
        trace |= {"customdata": error_texts(error[shown])}
        error = np.nan_to_num(error[shown])
        low = np.maximum(y - error, y / 10) if positive else y - error
        _add_band(drawn, x, low, y + error, colour, f"of {name}")
        hover += "%{customdata}"
    mode = "lines" if len(x) > 1 else "markers"  # a single point has no line
    options = {"mode": mode, "line": {"color": colour, "width": 2}, "legendgroup": f"of {name}"} | trace
    hovertemplate = f"<b>%{{fullData.name}}</b><br>%{{x:.6~g}}: {hover}<extra></extra>"
    drawn.add_scatter(x=x, y=y, name=name, hovertemplate=hovertemplate, **options)


def add_first_step(
    drawn: go.Figure,
    t: np.ndarray,
    value: np.ndarray,
    name: str,
    colour: str,
    hover: str,
    error: np.ndarray | None = None,
) -> None:
    """Add the step to the data, L_0, as a diamond that belongs to the line ``name``.

    Args:
        drawn: the figure.
        t: (1,).
        value: (1,).
        name: of the line.
        colour: of the line.
        hover: text after the name.
        error: (1,) standard error of ``value``.
    """
    drawn.add_scatter(
        x=t,
        y=value,
        error_y=None if error is None else {"array": error, "thickness": 1.5, "width": 0},
        mode="markers",
        marker={"size": 7, "symbol": "diamond", "color": colour},
        name=name,
        legendgroup=f"of {name}",
        showlegend=False,
        hovertemplate=f"<b>%{{fullData.name}}</b><br>{hover}<extra></extra>",
    )


def part_label(name: str) -> str:
    """``L<sub>t</sub>`` for a part of the bound, ``t = 2–10`` for a bin of t; ``total`` is unchanged."""
    if (found := bin_range(name)) is not None:
        t, low, high = found
        return f"{t} = {low}–{high}"
    return f"L<sub>{name[2:]}</sub>" if name.startswith("L_") else name


def error_texts(errors: Iterable[float | None]) -> list[str]:
    """`` ± 0.012`` for hover labels; empty where the error is unknown, as for a single draw."""
    return [f" ± {error:.2g}" if error is not None and np.isfinite(error) else "" for error in errors]


def _add_band(
    drawn: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, group: str
) -> None:
    drawn.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=faded(colour, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )


def shaded(colour: str, number: int, count: int) -> str:
    """One of ``count`` shades of a colour, from dark to light; the middle one is the colour itself."""
    shade = (2 * number + 1) / count - 1  # in (-1, 1)
    end = 255 if shade > 0 else 0
    return "#" + "".join(
        f"{round(value + 0.5 * abs(shade) * (end - value)):02x}" for value in bytes.fromhex(colour[1:])
    )


def faded(colour: str, opacity: float) -> str:
    """The colour with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def has_traces(drawn: go.Figure) -> bool:
    """Whether the figure has traces."""
    return len(drawn.data) > 0  # pyright: ignore[reportArgumentType]
