"""Charts as images, for loggers that have no charts of their own. Drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nelbo.evaluation.t_bins import bin_range

SCALE = 2  # pixels per unit of the layout
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 54, 52
INK, QUIET, GRID, PAPER = "#1f2933", "#5b6775", "#e4e8ed", "#ffffff"
OLD, NEW = (196, 208, 224), (39, 96, 172)  # colours of the first and of the last curve
BIN_COLOURS = ("#e2953b", "#a9cdf0", "#78acdf", "#4b87d9", "#345fa8", "#243f73", "#9b7cd1")
SMALLEST_LABEL = 0.06  # share of a bar that has its name inside


@dataclass(frozen=True)
class Curve:
    """L_t against t with standard errors, (B,); the first point is L_0.

    Attributes:
        t: of each point, increasing.
        value: of each point.
        stderr: of each value; NaN where it is unknown.
    """

    t: np.ndarray
    value: np.ndarray
    stderr: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Which points a logarithmic axis can show, (B,) bool."""
        return np.isfinite(self.value) & (self.value > 0)


def draw_curves(curves: Mapping[int, Curve], title: str, unit: str) -> Image.Image:
    """Curves of several training steps on logarithmic axes, the last with a band of one standard error.

    Values that are not positive are left out.

    Args:
        curves: by training step.
        title: of the chart.
        unit: of the values.
    """
    canvas = _Canvas(title)
    values = np.concatenate([curve.value[curve.shown] for curve in curves.values()])
    if not len(values):
        canvas.text((LEFT, TOP + 20), "no positive values", QUIET)
        return canvas.image
    last_t = max(float(curve.t[-1]) for curve in curves.values())
    x = _LogAxis(1.0, max(last_t, 10.0), LEFT, WIDTH - RIGHT)
    y = _LogAxis(float(values.min()) / 1.3, float(values.max()) * 1.3, HEIGHT - BOTTOM, TOP)
    for tick in x.ticks():
        canvas.line([(x(tick), TOP), (x(tick), HEIGHT - BOTTOM)], GRID, 1)
        canvas.text((x(tick), HEIGHT - BOTTOM + 6), f"{tick:.4g}", QUIET, "ma")
    for tick in y.ticks():
        canvas.line([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], GRID, 1)
        canvas.text((LEFT - 8, y(tick)), f"{tick:.4g}", QUIET, "rm")
    canvas.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 22), "t, from data to noise", QUIET, "ma")
    canvas.text((WIDTH - RIGHT, 14), f"{unit}, per step; diamond: L_0", QUIET, "ra")
    for number, (step, curve) in enumerate(sorted(curves.items()), 1):
        colour = _between(OLD, NEW, number / len(curves))
        later = curve.shown.copy()
        later[0] = False
        t, value, error = curve.t[later], curve.value[later], np.nan_to_num(curve.stderr[later])
        if number == len(curves):
            high, low = np.minimum(value + error, 10**y.high), np.maximum(value - error, 10**y.low)
            band = [*_points(x, t, y, high), *reversed(_points(x, t, y, low))]
            canvas.polygon(band, _between((255, 255, 255), NEW, 0.18))
        canvas.line(_points(x, t, y, value), colour, 2)
        if curve.shown[0]:
            canvas.diamond((x(curve.t[0]), y(curve.value[0])), colour)
        canvas.legend(f"step {step}", colour)
    return canvas.image


def draw_shares(shares: Mapping[str, float], title: str) -> Image.Image:
    """The shares of a bound as one bar from L_0 to L_T, with a legend.

    Args:
        shares: of L_0, of each bin of t, and of L_T; they add up to 1.
        title: of the chart.
    """
    canvas = _Canvas(title, height=190)
    names = list(shares)
    middle = BIN_COLOURS[1:-1]
    colours = [BIN_COLOURS[0], *(middle[i % len(middle)] for i in range(len(names) - 2)), BIN_COLOURS[-1]]
    left, width = 24.0, WIDTH - 48
    for name, colour in zip(names, colours, strict=True):
        share = max(shares[name], 0.0)
        right = left + share * width
        canvas.rectangle((left, 56, right, 100), colour)
        if share >= SMALLEST_LABEL:
            canvas.text(((left + right) / 2, 106), f"{share:.0%}", INK, "ma")
        left = right
    column = width / min(len(names), 4)
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x, y = 24 + (i % 4) * column, 136 + (i // 4) * 22
        canvas.rectangle((x, y, x + 12, y + 12), colour)
        canvas.text((x + 18, y + 6), f"{_part(name)}  {shares[name]:.1%}", QUIET, "lm")
    return canvas.image


class _LogAxis:
    """Maps values to positions on a logarithmic axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = math.log10(low), math.log10(high)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Powers of ten, at most 8 of them; 1, 2, 5, 10, ... over less than two decades."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        digits = (1, 2, 5) if self.high - self.low < 2 else (1,)
        every = -(-len(powers) // 8)
        ticks = [digit * 10.0**power for power in powers[::every] for digit in digits]
        slack = 1e-9
        return [tick for tick in ticks if self.low - slack <= math.log10(tick) <= self.high + slack]


class _Canvas:
    """Draws in units of the layout, enlarged by :data:`SCALE`."""

    def __init__(self, title: str, height: int = HEIGHT) -> None:
        self.image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._legend_x = float(LEFT)
        self.text((24, 12), title, INK, size=15)

    def text(
        self, at: tuple[float, float], text: str, colour: str, anchor: str = "la", size: float = 12
    ) -> None:
        font = ImageFont.load_default(size * SCALE)
        self._draw.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, anchor=anchor, font=font)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        if len(points) > 1:
            self._draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, width * SCALE, joint="curve")

    def polygon(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        if len(points) > 2:
            self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def diamond(self, at: tuple[float, float], colour: str, radius: float = 5) -> None:
        x, y = at
        self.polygon([(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)], colour)

    def rectangle(self, box: tuple[float, float, float, float], colour: str) -> None:
        if box[2] > box[0]:
            self._draw.rectangle([side * SCALE for side in box], fill=colour)

    def legend(self, text: str, colour: str) -> None:
        """The next entry of the legend, under the title."""
        font = ImageFont.load_default(12 * SCALE)
        self.rectangle((self._legend_x, 39, self._legend_x + 14, 42), colour)
        self.text((self._legend_x + 19, 40), text, QUIET, "lm")
        self._legend_x += 34 + font.getlength(text) / SCALE


def _points(x: _LogAxis, t: np.ndarray, y: _LogAxis, values: np.ndarray) -> list[tuple[float, float]]:
    return [(x(at), y(value)) for at, value in zip(t, values, strict=True)]


def _between(first: tuple[int, int, int], last: tuple[int, int, int], weight: float) -> str:
    mixed = (round(a + (b - a) * weight) for a, b in zip(first, last, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _part(name: str) -> str:
    """``t = 2 to 10`` for ``t_2_10``; other names are unchanged."""
    found = bin_range(name)
    return name if found is None else f"{found[0]} = {found[1]} to {found[2]}"
