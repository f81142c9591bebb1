"""A W&B logger whose failure costs one line, and never the training."""

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from nelbo.evaluation.accumulator import StepTable
from nelbo.evaluation.units import Unit

STEP = "trainer/global_step"
ERROR = "_stderr"  # in the name of a metric that is a standard error or a part of one
CHOICES = ("data", "schedule", "loss")  # that name and tag a run by default

BoundFigure = Callable[[str, Tensor, StepTable, Unit], Any]  # of (split, timesteps, table, unit)
LOST = (OSError, wandb.Error, MailboxClosedError, HandleAbandonedError)
"""What is raised when W&B's own process has died, cannot write, or cannot do without the server."""


class GuardedWandbLogger(WandbLogger):
    """A W&B run that is given up when it fails: the first failure is told, and nothing is sent after it.

    Args:
        experiment: the run; None on other ranks, where nothing is logged.
        save_dir: the run's folder.
        named: whether the run has a name; otherwise its configuration gives it one.
        tagged: the same for its tags.
        bound_figure: makes the chart of L_t against t; None for the table alone.
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
        self._given_up = False
        self._folder = Path(experiment.dir).parent if experiment else None
        self._named, self._tagged = named, tagged
        self._hidden: set[str] = set()
        if experiment:
            _tell_warnings(self.tell)
            self.guarded(lambda: _plot_against_steps(experiment))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars. Standard errors get no panels of their own in W&B's automatic workspace."""
        errors = {name for name in metrics if ERROR in name} - self._hidden
        self._hidden |= errors
        for name in sorted(errors):
            self.guarded(lambda name=name: _hide(self.experiment, name))
        self.guarded(lambda: super(GuardedWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The configuration, and the default name and tags from it."""
        self.guarded(lambda: super(GuardedWandbLogger, self).log_hyperparams(params))
        self.guarded(lambda: self._label_run(choices(params if isinstance(params, dict) else vars(params))))

    def _label_run(self, chosen: list[str]) -> None:
        if chosen and not self._named:
            self.experiment.name = " ".join(chosen)
        if chosen and not self._tagged:
            self.experiment.tags = tuple(chosen)

    def log(self, record: Callable[[wandb.Run], dict[str, Any]], step: int) -> None:
        """Charts and images at a training step. ``record`` makes them, which may copy a file into the run."""
        self.guarded(lambda: self.experiment.log({**record(self.experiment), STEP: step}))

    def finish(self) -> None:
        """End the run; the wait for the server has a bound."""
        if self._folder is None:
            return
        self.guarded(wandb.finish)
        if self._given_up:  # the next job of a sweep needs a process of W&B's that is alive
            with suppress(*LOST):  # told already
                wandb.teardown()

    def guarded(self, action: Callable[[], None]) -> None:
        """Do it, unless the run was given up; give it up if it fails."""
        if self._given_up:
            return
        try:
            action()
        except LOST as error:
            self._given_up = True
            self.tell(f"{type(error).__name__}: {error}; nothing more is logged there")

    def tell(self, what: str) -> None:
        """Say what happened and where the run is."""
        print(f"warning: W&B: {what}; `wandb sync {self._folder}` uploads it later", file=sys.stderr)


def choices(config: Mapping[str, Any]) -> list[str]:
    """Class names of the data, the schedule and the loss of a configuration, as far as it has them."""
    nodes = (config.get(name) for name in CHOICES)
    targets = (node.get("_target_") for node in nodes if isinstance(node, Mapping))
    return [str(target).rpartition(".")[2] for target in targets if target]


def _plot_against_steps(run: wandb.Run) -> None:
    """Make training steps the axis of every chart, in place of W&B's count of rows."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)


def _hide(run: wandb.Run, name: str) -> None:
    run.define_metric(name, step_metric=STEP, step_sync=True, hidden=True)


def _tell_warnings(tell: Callable[[str], None]) -> None:
    """Keep W&B from writing to the terminal; the first warning of a run, such as a refusal, is told."""
    logger = logging.Logger("wandb.terminal", logging.WARNING)
    logger.addHandler(_First(tell))
    wandb.termsetup(wandb.Settings(silent=True), logger)


class _First(logging.Handler):
    """Hands on the first record: those after it say the same of the same server."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """W&B's lines begin with its name; after the first sentence they advise what ``tell`` says better."""
        if not self._told:
            self._told = True
            self._tell(record.getMessage().removeprefix("wandb: ").split(". ")[0].rstrip("."))
