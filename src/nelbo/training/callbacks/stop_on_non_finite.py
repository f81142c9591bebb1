"""Stop when the loss is NaN or infinite, before a checkpoint is overwritten."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.option_types import PositiveInt
from nelbo.training.errors import NonFiniteLossError

KEPT = "the last good checkpoint is kept; try a lower optimizer.lr or trainer.gradient_clip_val"


class StopOnNonFinite(Callback):
    """Raise :class:`NonFiniteLossError`, naming the step, and the steps of the chain in the batch.

    On a GPU, reading the loss synchronises host and device. Losses are therefore checked together, every
    ``check_every`` batches and before a validation or a save; on the CPU, after every batch.

    Args:
        check_every: batches between two checks on a GPU.
    """

    def __init__(self, check_every: PositiveInt = 50) -> None:
        self.check_every = check_every
        self._seen: list[tuple[int, Tensor, Tensor]] = []  # step, is finite (), steps of the chain (B,)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Record the batch; check if due."""
        self._seen.append((trainer.global_step, outputs["loss"].isfinite(), outputs["index"]))
        if pl_module.device.type == "cpu" or len(self._seen) >= self.check_every:
            self.check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before a validation."""
        self.check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check before a save, the weights too: a gradient may be NaN although the loss is finite."""
        self.check(trainer)
        weights = checkpoint["state_dict"].items()
        broken = next((name for name, w in weights if not w.isfinite().all()), None)
        if trainer.strategy.reduce_boolean_decision(broken is not None, all=False):
            name = broken or "of another process"
            raise NonFiniteLossError(
                f"weights are not finite at step {trainer.global_step} ({name}): training stopped, {KEPT}"
            )

    def check(self, trainer: Trainer) -> None:
        """Raise if a recorded loss is not finite on any rank. Call it on all ranks."""
        if not self._seen:
            return
        finite = torch.stack([is_finite for _, is_finite, _ in self._seen])
        all_finite = trainer.strategy.reduce_boolean_decision(bool(finite.all()), all=True)
        if not all_finite:
            raise NonFiniteLossError(self._describe(finite))
        self._seen.clear()

    def _describe(self, finite: Tensor) -> str:
        if finite.all():
            return f"the loss of another process is not finite, at step {self._seen[0][0]} or later"
        step, _, index = self._seen[int((~finite).int().argmax())]
        values = sorted(set(index.tolist()))
        shown = ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
        where = f"at step {step}, in steps {shown} of the chain"
        return f"the loss is not finite {where}: training stopped, {KEPT}"
