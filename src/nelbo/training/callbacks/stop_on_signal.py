"""Stop between two steps when a signal asks for it: Ctrl-C, SIGTERM, SIGHUP, and SLURM's warning SIGUSR1."""

import os
import signal
import sys
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from nelbo.option_types import PositiveInt
from nelbo.training import loop_state
from nelbo.training.errors import Interrupted


class StopOnSignal(Callback):
    """Raise :class:`Interrupted` on all ranks at the same step, after the current one.

    A signal may come in the middle of an optimizer step, and to one process before another; Lightning's own
    handlers would save, or talk to the other processes, right there. So a signal is only remembered, and all
    ranks agree on it between two steps. A second Ctrl-C does not wait.

    Args:
        agree_every: steps between two looks of several ranks at each other, for which a device has to be
            waited for. A process alone looks before every step.

    Raises:
        ValueError: when ``agree_every`` is below 1.
    """

    def __init__(self, agree_every: PositiveInt = 10) -> None:
        if agree_every < 1:
            raise ValueError(f"callbacks.stop_on_signal.agree_every={agree_every} must be at least 1")
        self.agree_every = agree_every
        self._received: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen. Not earlier, for Lightning sets its handlers just before."""
        self._listen(self._remember)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop, if any rank was told to."""
        due = trainer.world_size == 1 or trainer.global_step % self.agree_every == 0
        if due and loop_state.begins_window(trainer):
            self._stop_if_told(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is nothing to save in a test: stop at once."""
        self._stop_if_told(trainer)

        def stop(number: int, frame: FrameType | None) -> None:
            raise Interrupted(number, trainer.global_step)

        self._listen(stop)

    def _stop_if_told(self, trainer: Trainer) -> None:
        told = self._received is not None
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        if told:
            raise Interrupted(self._received or signal.SIGTERM, trainer.global_step)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if rank_zero_only.rank == 0:
                print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def _listen(self, handler: Any) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            numbers.append(signal.SIGHUP)
        if "SLURM_JOB_ID" in os.environ:
            numbers.append(signal.SIGUSR1)
        for number in numbers:
            signal.signal(number, handler)
