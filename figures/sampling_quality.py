"""docs/images/sampling_quality.png: fd_pixels against network evaluations, a panel for each sampler.

    python -m figures.sampling_quality

Draws what figures.measure_sampling measured, and prints it as the table of docs/sampling.md.
"""

import math
import statistics
from collections import defaultdict
from itertools import product

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.measure_sampling import DATA, SAMPLERS, SPACINGS, rows
from figures.page import page, save
from nelbo.dashboard.report.style import RUN_COLOURS, figure

COLUMNS = 3
TICKS = (0.5, 1, 2, 5, 10, 20)
Measured = dict[tuple[str, str], dict[int, list[dict[str, str]]]]


def main() -> None:
    measured: Measured = defaultdict(lambda: defaultdict(list))
    held_out: list[float] = []
    for row in rows():
        if row["sampler"] == DATA:
            held_out.append(float(row["fd_pixels"]))
        else:
            measured[row["sampler"], row["spacing"]][int(row["budget"])].append(row)
    body = '<div class="plot" data-card="quality" data-view="" style="width: 900px; height: 560px"></div>'
    save(page(body, {"quality": draw(measured, held_out)}), "sampling_quality.png")
    print_table(measured, held_out)


def draw(measured: Measured, held_out: list[float]) -> go.Figure:
    """Panels that share their axes; the legend is where the last panel would be."""
    panels = make_subplots(
        rows=2,
        cols=COLUMNS,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.14,
        subplot_titles=list(SAMPLERS),
    )
    panels.update_layout(figure("", "").layout)
    budgets = sorted({budget for of_budget in measured.values() for budget in of_budget})
    shown = [budget for budget in budgets if len(measured["ddim", "trailing"][budget])]
    for (number, sampler), (colour, spacing) in product(
        enumerate(SAMPLERS), zip(RUN_COLOURS, SPACINGS, strict=False)
    ):
        place = {"row": number // COLUMNS + 1, "col": number % COLUMNS + 1}
        found = [measured[sampler, spacing][budget] for budget in shown]
        means, spreads = zip(*(mean_and_spread(cell) for cell in found), strict=True)
        panels.add_scatter(
            x=[int(cell[0]["evaluations"]) for cell in found],
            y=means,
            error_y={"array": spreads, "thickness": 1.2, "width": 0},
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 6},
            name=spacing,
            showlegend=number == 0,
            **place,
        )
    for distance in held_out:
        panels.add_hline(y=distance, line={"color": "#8b95a5", "width": 1, "dash": "dash"})
    panels.update_xaxes(type="log", tickvals=shown, range=_log_range(shown[0], shown[-1]), zeroline=False)
    panels.update_yaxes(
        type="log", tickvals=TICKS, ticktext=[f"{tick:g}" for tick in TICKS], zeroline=False, automargin=True
    )
    for number in range(len(SAMPLERS)):
        panels.update_xaxes(title="network evaluations", row=number // COLUMNS + 1, col=number % COLUMNS + 1)
    panels.update_yaxes(title="fd_pixels", col=1)
    panels.update_layout(
        legend={"orientation": "v", "x": 0.72, "y": 0.36, "xanchor": "left", "yanchor": "top"},
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
    )
    panels.add_annotation(
        text="dashed: held-out images",
        x=0.72, y=0.06, xref="paper", yref="paper", xanchor="left", showarrow=False,
    )  # fmt: skip
    panels.update_annotations(font={"size": 13})
    return panels


def mean_and_spread(cell: list[dict[str, str]]) -> tuple[float, float]:
    """Mean over the seeds, and their standard deviation."""
    values = [float(row["fd_pixels"]) for row in cell]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def print_table(measured: Measured, held_out: list[float]) -> None:
    """In Markdown, a line for each sampler and chain."""
    budgets = sorted({budget for of_budget in measured.values() for budget in of_budget})
    print("| sampler | chain | " + " | ".join(map(str, budgets)) + " |")
    print("| --- | --- |" + " --- |" * len(budgets))
    for (sampler, spacing), of_budget in measured.items():
        cells = [_cell(of_budget[budget]) for budget in budgets]
        print(f"| {sampler} | {spacing} | " + " | ".join(cells) + " |")
    print("held-out images:", *(f"{distance:.3f}" for distance in held_out))


def _cell(cell: list[dict[str, str]]) -> str:
    if not cell:
        return ""
    mean, spread = mean_and_spread(cell)
    spent = "" if cell[0]["evaluations"] == cell[0]["budget"] else f" ({cell[0]['evaluations']})"
    return f"{mean:.3f} ± {spread:.3f}{spent}" if len(cell) > 1 else f"{mean:.3f}{spent}"


def _log_range(low: float, high: float) -> list[float]:
    return [math.log10(low / 1.4), math.log10(high * 1.25)]


if __name__ == "__main__":
    main()
