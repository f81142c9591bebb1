"""Exponential moving average of the weights: Lightning's callback with a warm-up."""

from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from nelbo.option_types import Probability


class EMA(WeightAveraging):
    """Average the weights. Validation, test and the ``state_dict`` of checkpoints use the average.

    The decay of update n is min(decay, (1 + n) / (10 + n)). Without this warm-up, the average of a short run
    consists mostly of its initial weights.

    Args:
        decay: EMA decay rate in [0, 1); 0.9999 in DDPM and Improved DDPM.
    """

    def __init__(self, decay: Probability = 0.9999) -> None:
        self.decay = decay
        # buffers are tables and counters: copy them, do not average them
        super().__init__(use_buffers=False)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after every optimizer step, without a device synchronisation."""
        if trainer.global_step == self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        self.update(pl_module, self.decay_at(trainer.global_step))

    def update(self, pl_module: LightningModule, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights, in place; buffers are copied."""
        assert self._average_model is not None
        average = list(self._average_model.module.parameters())
        torch._foreach_lerp_(average, list(pl_module.parameters()), 1.0 - decay)  # pyright: ignore
        for copy, current in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
            copy.copy_(current)
        self._average_model.n_averaged += 1

    def decay_at(self, step: int) -> float:
        """Decay of the update after optimizer step ``step``; 0 for the first one."""
        n = step - 1
        return 0.0 if n == 0 else min(self.decay, (1 + n) / (10 + n))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the raw weights: the last checkpoint is written after this hook."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the average into the module for the test."""
        super().on_train_end(trainer, pl_module)


def measured_weights(trainer: Trainer) -> Literal["ema", "raw"]:
    """The weights that validation, test and checkpoints use."""
    averaged = any(isinstance(callback, EMA) for callback in trainer.callbacks)  # pyright: ignore
    return "ema" if averaged else "raw"
