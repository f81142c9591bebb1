"""docs/images/sampling_quality.png: fd_pixels against network evaluations, one panel per sampler.

    python -m figures.sampling_quality

Draws the measurements of figures.measure_sampling, and prints the table of docs/sampling.md.
"""

import math
import statistics

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.measure_sampling import BUDGETS, DATA, SPACINGS, rows
from figures.page import page, save
from nelbo.reports.html.style import RUN_COLOURS, figure

COLUMNS = 2
X_RANGE = (math.log10(3.2), math.log10(64))
Y_TICKS = (0.7, 1, 1.5, 2, 3, 4)
Y_RANGE = (math.log10(0.58), math.log10(4.4))  # what is worse than that is in the table
Measured = dict[tuple[str, str], dict[int, list[dict[str, str]]]]
"""The rows of each sampler and chain, by budget."""


def main() -> None:
    measured, held_out = read()
    body = '<div class="plot" data-card="quality" data-view="" style="width: 900px; height: 700px"></div>'
    save(page(body, {"quality": draw(measured, held_out)}), "sampling_quality.png")
    print_table(measured, held_out)


def read() -> tuple[Measured, list[float]]:
    """The measurements of the samplers and of held-out images."""
    measured: Measured = {}
    held_out: list[float] = []
    for row in rows():
        if row["sampler"] == DATA:
            held_out.append(float(row["fd_pixels"]))
        else:
            of_budget = measured.setdefault((row["sampler"], row["spacing"]), {})
            of_budget.setdefault(int(row["budget"]), []).append(row)
    return measured, held_out


def draw(measured: Measured, held_out: list[float]) -> go.Figure:
    """One panel per sampler and one line per chain; dashed lines are held-out images."""
    samplers = list(dict.fromkeys(sampler for sampler, _ in measured))
    panels = make_subplots(
        rows=math.ceil(len(samplers) / COLUMNS),
        cols=COLUMNS,
        shared_yaxes="all",
        horizontal_spacing=0.05,
        vertical_spacing=0.15,
        subplot_titles=samplers,
    )
    panels.update_layout(figure("", "").layout)
    colours = dict(zip(SPACINGS, RUN_COLOURS, strict=False))
    for (sampler, spacing), of_budget in measured.items():
        number = samplers.index(sampler)
        place = {"row": number // COLUMNS + 1, "col": number % COLUMNS + 1}
        means, spreads = zip(*map(mean_and_spread, of_budget.values()), strict=True)
        panels.add_scatter(
            x=[int(cell[0]["evaluations"]) for cell in of_budget.values()],
            y=means,
            error_y={"array": spreads, "thickness": 1.2, "width": 0},
            mode="lines+markers",
            line={"color": colours[spacing], "width": 2},
            marker={"size": 6},
            name=spacing,
            showlegend=number == 0,
            **place,
        )
        panels.update_xaxes(
            title={"text": "network evaluations", "font": {"size": 13}, "standoff": 8}, **place
        )
    for distance in held_out:
        panels.add_hline(y=distance, line={"color": "#8b95a5", "width": 1, "dash": "dash"})
    panels.add_scatter(
        x=[None],
        y=[None],
        mode="lines",
        line={"color": "#8b95a5", "width": 1, "dash": "dash"},
        name="held-out images themselves",
    )
    panels.update_xaxes(type="log", tickvals=BUDGETS, range=X_RANGE, zeroline=False)
    panels.update_yaxes(type="log", tickvals=Y_TICKS, range=Y_RANGE, zeroline=False, automargin=True)
    panels.update_yaxes(title={"text": "fd_pixels", "font": {"size": 13}, "standoff": 8}, col=1)
    panels.update_annotations(font={"size": 14})
    panels.update_layout(legend={"y": 1.06}, margin={"l": 8, "r": 8, "t": 64, "b": 8})
    return panels


def mean_and_spread(cell: list[dict[str, str]]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; NaN for a single seed."""
    values = [float(row["fd_pixels"]) for row in cell]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def print_table(measured: Measured, held_out: list[float]) -> None:
    """Print a Markdown table with one row per sampler and chain."""
    print("| sampler | chain | " + " | ".join(map(str, BUDGETS)) + " |")
    print("| --- | --- |" + " --- |" * len(BUDGETS))
    for (sampler, spacing), of_budget in measured.items():
        cells = [_in_words(of_budget[budget]) if budget in of_budget else "" for budget in BUDGETS]
        print(f"| {sampler} | {spacing} | " + " | ".join(cells) + " |")
    print("held-out images:", *(f"{distance:.3f}" for distance in held_out))


def _in_words(cell: list[dict[str, str]]) -> str:
    mean, spread = mean_and_spread(cell)
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


if __name__ == "__main__":
    main()
