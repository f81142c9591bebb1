"""Exponential moving average of sharded weights."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from nelbo.option_types import Probability
from nelbo.training.callbacks.ema import EMA
from nelbo.training.sharded.weights import reshard


class ShardedEMA(EMA):
    """The :class:`EMA` of ``trainer=fsdp``: each process averages its shard.

    Checkpoints are unsharded, in the format of :class:`EMA`.

    Args:
        decay: EMA decay rate.
    """

    def __init__(self, decay: Probability = 0.9999) -> None:
        super().__init__(decay)
        self._average: list[Tensor] = []  # shards of the parameters; empty before the first step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do nothing: the average starts with the weights after the first step."""

    def update(self, pl_module: LightningModule, decay: float) -> None:
        """Update the shard of this process."""
        current = [parameter.detach() for parameter in pl_module.parameters()]
        if not self._average:
            self._average = [part.clone() for part in current]
        torch._foreach_lerp_(self._average, current, 1.0 - decay)  # pyright: ignore

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap the average in. After training it is already in place."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap the raw weights back."""
        self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the average into the module for the test."""
        self._swap(pl_module)
        self._average = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save average and raw weights, gathered on rank 0. Called on all ranks."""
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        self._swap(pl_module)
        checkpoint["state_dict"] = trainer.strategy.lightning_module_state_dict()
        self._swap(pl_module)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._latest_update_step)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average, which the strategy has loaded, and load the raw weights."""
        self._average = [parameter.detach().clone() for parameter in pl_module.parameters()]
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(pl_module, checkpoint["current_model_state"], options=options)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        reshard(pl_module)  # the swap is between shards
        for average, parameter in zip(self._average, pl_module.parameters(), strict=bool(self._average)):
            previous = average.clone()
            average.copy_(parameter)
            parameter.copy_(previous)
