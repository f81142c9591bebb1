"""Exponential moving average of the weights, by Lightning's callback, with a warm-up."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Average the weights; validation, the test and checkpoints' ``state_dict`` use the average.

    The decay of update n is min(decay, (1 + n) / (10 + n)): without this warm-up the average of a short run
    is still largely its initial weights.

    Args:
        decay: of the average, 0.9999 in DDPM and Improved DDPM.

    Raises:
        ValueError: when ``decay`` is not inside [0, 1).
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"callbacks.ema.decay={decay} must be inside [0, 1)")
        self.decay = decay
        # buffers are tables and counters, of which an average means nothing
        super().__init__(use_buffers=False, multi_avg_fn=self._update)

    @torch.no_grad()
    def _update(self, averaged: Any, current: Any, num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        decay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(averaged, current, 1.0 - decay)  # pyright: ignore

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the weights as they are: the last checkpoint is yet to be written."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module, for what comes after training."""
        super().on_train_end(trainer, pl_module)
