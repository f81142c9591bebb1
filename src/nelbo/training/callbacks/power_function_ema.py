"""Snapshots of power-function averages of the weights, for an average of any length after training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.option_types import PositiveInt, SigmaRel
from nelbo.runs import ema_snapshots
from nelbo.runs.ema_snapshots import EMASnapshot
from nelbo.training.callbacks.due import Due
from nelbo.training.post_hoc_ema import power_exponent, update_weight
from nelbo.training.sharded.strategy import FullySharded


class PowerFunctionEMA(Callback):
    """Average the weights with power-function profiles, and store the averages every ``every_n_steps`` steps.

    Karras et al. 2024 (EDM2), section 3 and appendix C. Validation and checkpoints do not use these averages;
    ``evaluate.py ema=...`` combines them to an average of any length.

    Args:
        run_dir: folder of the run.
        sigma_rel: relative width of each average.
        every_n_steps: optimizer steps between two snapshots.
    """

    def __init__(
        self,
        run_dir: str,
        sigma_rel: Annotated[Sequence[SigmaRel], MinLen(1)] = (0.05, 0.10),
        every_n_steps: PositiveInt = 100,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.sigma_rel = list(sigma_rel)
        self.every_n_steps = every_n_steps
        self._gammas = [power_exponent(width) for width in self.sigma_rel]
        self._averages: list[list[Tensor]] = []  # of each width; empty before the first step
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the weights are not sharded.

        Raises:
            ValueError: with ``trainer=fsdp``.
        """
        if isinstance(trainer.strategy, FullySharded):
            raise ValueError(
                "callbacks=power_function_ema averages weights that are not sharded: use trainer=ddp, or "
                "callbacks=default"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the averages to the device of the weights."""
        parameters = [parameter.detach() for parameter in pl_module.parameters()]
        stored = self._averages or [parameters] * len(self.sigma_rel)  # the first update replaces these
        self._averages = [
            [torch.empty_like(p).copy_(part) for p, part in zip(parameters, average, strict=True)]
            for average in stored
        ]
        self._is_due = Due(self.every_n_steps, since=trainer.global_step)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages after every optimizer step, and write a snapshot when it is due."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        parameters = list(pl_module.parameters())
        for gamma, average in zip(self._gammas, self._averages, strict=True):
            torch._foreach_lerp_(average, parameters, update_weight(self._step, gamma))  # pyright: ignore
        if self._is_due(trainer) and trainer.is_global_zero:
            ema_snapshots.write(self.run_dir, self._snapshot(pl_module))

    def _snapshot(self, pl_module: LightningModule) -> EMASnapshot:
        names = [name for name, _ in pl_module.named_parameters()]
        averages = [dict(zip(names, average, strict=True)) for average in self._averages]
        return EMASnapshot(self._step, self.sigma_rel, averages)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the averages of this step."""
        checkpoint[ema_snapshots.KEY] = self._snapshot(pl_module).to_dict()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the averages.

        Raises:
            ValueError: if the run was trained without them, or with others.
        """
        if ema_snapshots.KEY not in checkpoint:
            raise ValueError(
                "callbacks=power_function_ema: the checkpoint to resume from was trained without it"
            )
        stored = EMASnapshot.from_dict(checkpoint[ema_snapshots.KEY], "the checkpoint")
        names = dict(pl_module.named_parameters())
        if stored.sigma_rel != self.sigma_rel:
            raise ValueError(
                f"callbacks.power_function_ema.sigma_rel={self.sigma_rel}: the checkpoint to resume from has "
                f"averages of {stored.sigma_rel}"
            )
        if stored.shapes != {name: parameter.shape for name, parameter in names.items()}:
            raise ValueError("the power-function averages of the checkpoint are of another network")
        self._step = stored.step
        self._averages = [[average[name] for name in names] for average in stored.averages]
