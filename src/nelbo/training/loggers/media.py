"""The media of a run: samples, L_t against t, and shares of the bound, for every logger that shows images."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit
from nelbo.runs.bins import binned, log_bins
from nelbo.runs.images import evenly_spaced
from nelbo.training.loggers import charts
from nelbo.training.loggers.charts import Curve

MOST_CURVES = 6  # validations in one chart
COLUMNS = ("t", "log10_t", "L_t", "stderr", "low", "high")  # of the table of L_t


@dataclass(frozen=True)
class BoundChart:
    """L_t against t of one split.

    Attributes:
        split: ``val`` or ``test``.
        unit: of the values.
        table: sums of each step, in nats.
        curves: of this evaluation and of those before it, by optimizer steps, at most :data:`MOST_CURVES`.
    """

    split: str
    unit: Unit
    table: StepTable
    curves: dict[int, Curve]

    def image(self) -> Image.Image:
        """The curves as an image."""
        return charts.draw_curves(self.curves, f"{self.split}: L_t against t", self.unit.label)

    def rows(self) -> list[list[float | None]]:
        """L_t of every step with draws, in the columns :data:`COLUMNS`; low and high are L_t -+ stderr.

        ``stderr``, ``low`` and ``high`` are None where there are fewer than two draws.
        """
        drawn = self.table.drawn
        t = self.table.t[drawn].tolist()
        mean, stderr = (column[drawn] * self.unit.per_nat for column in (self.table.mean, self.table.stderr))
        rows: list[list[float | None]] = []
        for at, value, error in zip(t, mean.tolist(), stderr.tolist(), strict=True):
            band = [error, value - error, value + error] if math.isfinite(error) else [None, None, None]
            rows.append([at, math.log10(at), value, *band])
        return rows


class MediaLogger(Logger):
    """A logger with images. Each method is called on rank 0 only, at a training step."""

    @abstractmethod
    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        """Log an image under a key such as ``samples``, for an optimizer step."""

    def log_bound(self, chart: BoundChart, step: int) -> None:
        """Log L_t against t; by default as an image."""
        self.log_image(f"{chart.split}/L_t_against_t", chart.image(), step)

    def log_shares(self, split: str, shares: Mapping[str, float], step: int) -> None:
        """Log the shares of the bound by bin of t; by default as an image. Scalars have them as well."""
        self.log_image(f"{split}/shares", charts.draw_shares(shares, f"{split}: shares of the bound"), step)

    def finish(self) -> None:
        """Called once, after the test."""


def media_loggers(loggers: Iterable[Logger]) -> list[MediaLogger]:
    """The loggers with images."""
    return [logger for logger in loggers if isinstance(logger, MediaLogger)]


def log_image(trainer: Trainer, key: str, image: Image.Image) -> None:
    """Log an image at the current step."""
    for logger in media_loggers(trainer.loggers):
        logger.log_image(key, image, trainer.global_step)


def finish(loggers: Iterable[Logger]) -> None:
    """Finish the runs of the loggers, so that the next job of a sweep starts new ones."""
    for logger in media_loggers(loggers):
        logger.finish()


def curve_of(steps: StepTable, unit: Unit) -> Curve:
    """L_t in bins of log t; the first point is L_0."""
    table = binned(steps, log_bins([steps]))
    t = np.concatenate([table.bins.first_t[:1], table.bins.centre[1:]])
    return Curve(t, table.mean * unit.per_nat, table.stderr * unit.per_nat)


def shown_curves(curves: Mapping[int, Curve]) -> dict[int, Curve]:
    """At most :data:`MOST_CURVES` of the curves, evenly spread, the first and the last among them."""
    return {step: curves[step] for step in evenly_spaced(sorted(curves), MOST_CURVES)}
