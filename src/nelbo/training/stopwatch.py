"""Training time of a run, without interruptions."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Stopwatch(Callback):
    """Seconds of training, validations included, summed over all resumes of a run."""

    def __init__(self) -> None:
        self._before = 0.0  # seconds up to the checkpoint that was resumed
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._before, self._started = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        self._before = state_dict["seconds"]
