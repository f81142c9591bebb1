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
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

LOST = (OSError, wandb.Error, MailboxClosedError, HandleAbandonedError)
"""What is raised when W&B's own process has died, cannot write, or cannot do without the server."""


class GuardedWandbLogger(WandbLogger):
    """A W&B run that is given up when it fails: the first failure is told, and nothing is sent after it.

    Args:
        experiment: the run; None on other ranks, where nothing is logged.
        save_dir: the run's folder.
    """

    def __init__(self, save_dir: str, experiment: wandb.Run | None = None) -> None:
        super().__init__(save_dir=save_dir, experiment=experiment)
        self._given_up = False
        self._folder = Path(experiment.dir).parent if experiment else None
        if experiment:
            _tell_warnings(self.tell)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars."""
        self.guarded(lambda: super(GuardedWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The configuration."""
        self.guarded(lambda: super(GuardedWandbLogger, self).log_hyperparams(params))

    def log(self, record: Callable[[wandb.Run], dict[str, Any]]) -> None:
        """Charts and images. ``record`` makes them, for making one may copy a file into the run."""
        self.guarded(lambda: self.experiment.log(record(self.experiment)))

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
