"""The exponential moving average of weights that are shared out among the processes."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from nelbo.option_types import Probability
from nelbo.training.callbacks.ema import EMA
from nelbo.training.sharded.weights import reshard


class ShardedEMA(EMA):
    """:class:`EMA` for ``trainer=fsdp``: every process averages its part of the weights.

    Checkpoints are those of :class:`EMA`, whole.

    Args:
        decay: of the average.
    """

    def __init__(self, decay: Probability = 0.9999) -> None:
        super().__init__(decay)
        self._average: list[Tensor] = []  # parts of the parameters; none before the first step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing: the first average is the weights after the first step."""

    def update(self, pl_module: LightningModule, decay: float) -> None:
        """Average this process's part of the weights."""
        current = [parameter.detach() for parameter in pl_module.parameters()]
        if not self._average:
            self._average = [part.clone() for part in current]
        torch._foreach_lerp_(self._average, current, 1.0 - decay)  # pyright: ignore

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average, but not after training, when it is in place."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the weights."""
        self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module, for what comes after training."""
        self._swap(pl_module)
        self._average = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store both, gathered on the first process. On all processes."""
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        self._swap(pl_module)
        checkpoint["state_dict"] = trainer.strategy.lightning_module_state_dict()
        self._swap(pl_module)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._latest_update_step)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The strategy has loaded the average by now: keep it, and load the weights."""
        self._average = [parameter.detach().clone() for parameter in pl_module.parameters()]
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(pl_module, checkpoint["current_model_state"], options=options)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        reshard(pl_module)  # what is gathered is not what is kept
        for average, parameter in zip(self._average, pl_module.parameters(), strict=bool(self._average)):
            kept = average.clone()
            average.copy_(parameter)
            parameter.copy_(kept)
