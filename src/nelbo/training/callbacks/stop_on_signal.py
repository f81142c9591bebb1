"""Stop between two steps, or batches of a validation, after Ctrl-C, SIGTERM, SIGHUP, or SLURM's SIGUSR1."""

import os
import signal
import sys
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from nelbo.option_types import PositiveInt
from nelbo.training import loop_state
from nelbo.training.errors import Interrupted


class StopOnSignal(Callback):
    """Raise :class:`Interrupted` on all ranks between the same two steps.

    A signal may arrive in the middle of an optimizer step, and on one rank before another. The handlers of
    Lightning would save and communicate at that point. Here a signal is only recorded, and all ranks agree on
    it between two steps. A second Ctrl-C stops at once.

    Args:
        agree_every: steps between two exchanges among several ranks, each of which synchronises host and
            device. A single rank checks before every step. A validation checks before every batch.
    """

    def __init__(self, agree_every: PositiveInt = 10) -> None:
        self.agree_every = agree_every
        self._received: int | None = None
        self._shared_batches = 0  # of a validation, which all ranks have

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the handlers. Lightning has set its own just before."""
        self._set_handlers(self._record)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any rank has received a signal."""
        due = trainer.world_size == 1 or trainer.global_step % self.agree_every == 0
        if due and loop_state.begins_window(trainer):
            self._stop_if_received(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the number of batches that all ranks have. Outside of training, prepare to stop at once."""
        if trainer.state.fn != "fit":
            self._stop_at_once(trainer)
        self._shared_batches = sum(trainer.num_val_batches)
        if trainer.world_size > 1:
            own = torch.tensor(self._shared_batches, device=pl_module.device)
            self._shared_batches = int(trainer.strategy.reduce(own, reduce_op="min"))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop without a checkpoint: a resumed run continues from the last one."""
        if batch_idx < self._shared_batches:
            self._stop_if_received(trainer, in_validation=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once: a test has nothing to save."""
        self._stop_at_once(trainer)

    def _stop_at_once(self, trainer: Trainer) -> None:
        self._stop_if_received(trainer)

        def stop(number: int, frame: FrameType | None) -> None:
            raise Interrupted(number, trainer.global_step)

        self._set_handlers(stop)

    def _stop_if_received(self, trainer: Trainer, in_validation: bool = False) -> None:
        number = self._received or 0
        if trainer.world_size > 1:  # all ranks stop for the same signal, also one that has not received it
            own = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(own, reduce_op="max"))
        if number:
            raise Interrupted(number, trainer.global_step, in_validation)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if rank_zero_only.rank == 0:
                print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def _set_handlers(self, handler: Any) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            numbers.append(signal.SIGHUP)
        if "SLURM_JOB_ID" in os.environ:
            numbers.append(signal.SIGUSR1)
        for number in numbers:
            signal.signal(number, handler)
