"""Rate against distortion, with DDPM's published points for reference."""

from collections.abc import Sequence

from markupsafe import Markup

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import PIXELS_PER_UNIT
from nelbo.reports.comparison.named_run import chain_label, shared_label
from nelbo.reports.html.card import Card
from nelbo.reports.html.entry import Entry, lines
from nelbo.reports.html.style import GREY, figure
from nelbo.runs.bins import binned, log_bins, rate_and_distortion

# Ho et al. 2020, table 4: steps done of 1000, rate in bits/dim, RMSE on [0, 255]
DDPM_CIFAR10 = (
    (1000, 1.77581, 0.951),
    (900, 0.11994, 12.02),
    (800, 0.05415, 18.47),
    (700, 0.02866, 24.44),
    (500, 0.00716, 38.03),
    (300, 0.00081, 54.19),
    (100, 0.0, 67.60),
)


def rate_distortion(entries: Sequence[Entry]) -> Card:
    """The rate at step t, and how far the reconstruction from x_t is from the data."""
    is_discrete = all(entry.run.is_discrete for entry in entries)
    scale = "0 to 255" if is_discrete else "units of the data"
    drawn = figure(f"rate, {shared_label(entries)}", f"RMSE, {scale}")
    for line in lines(entries, _measured):
        table = binned(line.table, log_bins([line.table]))
        rate, distortion = rate_and_distortion(table, line.run.prior(line.split))
        drawn.add_scatter(
            x=rate * line.run.unit.per_nat,
            y=distortion * (PIXELS_PER_UNIT if line.run.is_discrete else 1.0),
            customdata=table.bins.centre,
            mode="lines+markers",
            line={"color": line.colour, "width": 2},
            marker={"size": 4},
            name=line.name,
            hovertemplate=f"<b>%{{fullData.name}}</b>, {chain_label([line.run])} = %{{customdata:.0f}}"
            "<br>rate %{x:.4g}, error %{y:.3g}<extra></extra>",
        )
    if is_discrete and len(drawn.data):  # pyright: ignore[reportArgumentType]
        steps, rate, error = zip(*DDPM_CIFAR10, strict=True)
        drawn.add_scatter(
            x=rate,
            y=error,
            customdata=steps,
            mode="markers",
            marker={"size": 7, "symbol": "circle-open", "color": GREY, "line": {"width": 1.5}},
            name="DDPM on CIFAR-10, published",
            hovertemplate="<b>DDPM on CIFAR-10</b>, %{customdata} of 1000 steps<br>rate %{x:.4g}, "
            "error %{y:.4g}<extra></extra>",
        )
    drawn.update_yaxes(rangemode="tozero")
    return Card(
        key="rate_distortion",
        title="Rate and distortion",
        caption=Markup(
            f"From noise to data: at each t, the {'bits' if is_discrete else 'nats'} that describe "
            "x<sub>t</sub> (L<sub>T</sub> and all steps above t), and how far x&#770;<sub>0</sub> is then "
            "from the data (root mean squared error"
            + (" on a scale of 0 to 255" if is_discrete else "")
            + "). "
            "L<sub>0</sub> is not part of it."
            + (
                " The open circles are DDPM's on CIFAR-10 (Ho et al. 2020, table 4), for reference: "
                "other data, so not a target."
                if is_discrete
                else ""
            )
        ),
        views={"rate and distortion": drawn},
        needs="val or test rows with sum_of_errors in bound.parquet",
    )


def _measured(terms: StepTable) -> bool:
    return bool(terms.drawn.any() and not terms.mse[terms.drawn].isnan().any())
