"""A W&B logger that is disabled on failure, so that training continues."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit
from nelbo.training.loggers import wandb_charts
from nelbo.training.loggers.guard import Guard
from nelbo.training.loggers.media import BoundChart, MediaLogger

STEP = "trainer/global_step"
ERROR = "_stderr"  # in the name of a metric that is a standard error or a part of one
CHOICES = ("data", "schedule", "loss")  # default name and tags of a run

BoundFigure = Callable[[str, StepTable, Unit], Any]  # of (split, table, unit)
LOST = (OSError, wandb.Error, MailboxClosedError, HandleAbandonedError)
"""Errors of W&B when its service process has died, cannot write, or cannot reach the server."""


class GuardedWandbLogger(WandbLogger, MediaLogger):
    """A W&B run that is disabled by its first failure, with one warning.

    Args:
        save_dir: the run's folder.
        experiment: the run; None on ranks other than 0, where nothing is logged.
        named: whether the run has a name; if not, it is named by the classes of :data:`CHOICES`.
        tagged: whether the run has tags; if not, it is tagged by the same classes.
        bound_figure: draws L_t against t; None to log the table only.
    """

    def __init__(
        self,
        save_dir: str,
        experiment: wandb.Run | None = None,
        named: bool = True,
        tagged: bool = True,
        bound_figure: BoundFigure | None = None,
    ) -> None:
        super().__init__(save_dir=save_dir, experiment=experiment)
        self.bound_figure = bound_figure
        self._folder = Path(experiment.dir).parent if experiment else None
        self.guarded = Guard("W&B", f"`wandb sync {self._folder}` uploads it later", LOST)
        self._named, self._tagged = named, tagged
        self._hidden: set[str] = set()
        if experiment:
            _forward_first_warning(self.guarded.warn)
            self.guarded(lambda: _plot_against_steps(experiment))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars. Standard errors get no panels in the automatic workspace."""
        errors = {name for name in metrics if ERROR in name} - self._hidden
        self._hidden |= errors
        for name in sorted(errors):
            self.guarded(lambda name=name: _hide(self.experiment, name))
        self.guarded(lambda: super(GuardedWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the configuration, and set the default name and tags."""
        self.guarded(lambda: super(GuardedWandbLogger, self).log_hyperparams(params))
        self.guarded(lambda: self._label_run(choices(params if isinstance(params, dict) else vars(params))))

    def _label_run(self, chosen: list[str]) -> None:
        if chosen and not self._named:
            self.experiment.name = " ".join(chosen)
        if chosen and not self._tagged:
            self.experiment.tags = tuple(chosen)

    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        """Log an image as ``wandb.Image``, with ``step`` as the value of the charts' axis."""
        self._log(lambda run: {key: wandb.Image(image)}, step)

    def log_bound(self, chart: BoundChart, step: int) -> None:
        """Log L_t against t: a chart with a band, its table, and a chart that overlays runs and validations.

        The keys are ``<split>/L_t_against_t``, ``<split>/L_t_against_t_table`` and ``<split>/L_t_by_step``.
        """
        key = f"{chart.split}/L_t_against_t"
        draw = self.bound_figure
        figure = None if draw is None else draw(chart.split, chart.table, chart.unit)

        def record(run: wandb.Run) -> dict[str, Any]:
            content: dict[str, Any] = {} if figure is None else {key: wandb.Plotly(figure)}
            content[f"{key}_table"] = wandb_charts.chart_table(run, chart, f"{key}_table")
            by_step = f"{chart.split}/L_t_by_step"
            return content | {by_step: wandb_charts.overlay(run, chart, by_step)}

        self._log(record, step)

    def log_shares(self, split: str, shares: Mapping[str, float], step: int) -> None:
        """Log the shares as bars, ``<split>/shares``."""
        key = f"{split}/shares"
        self._log(lambda run: {key: wandb_charts.shares_chart(run, split, shares, key)}, step)

    def _log(self, record: Callable[[wandb.Run], dict[str, Any]], step: int) -> None:
        """Log what ``record`` creates at a training step."""
        self.guarded(lambda: self.experiment.log({**record(self.experiment), STEP: step}))

    def finish(self) -> None:
        """Finish the run; waits for the server until ``finish_timeout``."""
        if self._folder is None:
            return
        self.guarded(wandb.finish)
        if self.guarded.failed:  # the next job of a sweep needs a new service process
            with suppress(*LOST):
                wandb.teardown()


def choices(config: Mapping[str, Any]) -> list[str]:
    """Class names of data, schedule and loss in a configuration; missing ones are skipped."""
    nodes = (config.get(name) for name in CHOICES)
    targets = (node.get("_target_") for node in nodes if isinstance(node, Mapping))
    return [str(target).rpartition(".")[2] for target in targets if target]


def _plot_against_steps(run: wandb.Run) -> None:
    """Use training steps as the axis of all charts, instead of the row number."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)


def _hide(run: wandb.Run, name: str) -> None:
    run.define_metric(name, step_metric=STEP, step_sync=True, hidden=True)


def _forward_first_warning(warn: Callable[[str], None]) -> None:
    """Silence the terminal output of W&B, except for the first warning of a run."""
    logger = logging.Logger("wandb.terminal", logging.WARNING)
    logger.addHandler(_FirstRecord(warn))
    wandb.termsetup(wandb.Settings(silent=True), logger)


class _FirstRecord(logging.Handler):
    """Forwards the first record; later ones repeat it."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__()
        self._warn = warn
        self._warned = False

    def emit(self, record: logging.LogRecord) -> None:
        """Forward the first sentence, without the prefix ``wandb:``."""
        if not self._warned:
            self._warned = True
            self._warn(record.getMessage().removeprefix("wandb: ").split(". ")[0].rstrip("."))
