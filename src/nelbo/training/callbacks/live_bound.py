"""Loss and bound of the training batches, from the predictions of the training step."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.data.batch import Batch
from nelbo.evaluation.accumulator import BoundAccumulator, Draws
from nelbo.runs import bound_table as table
from nelbo.training.callbacks.due import Due
from nelbo.training.module import DiffusionModule
from nelbo.training.ranks import all_reduce_sum, stack_ranks

LIVE_BOUND = "live_bound"  # in a checkpoint


class LiveBound(Callback):
    """Log ``train/loss``, ``train/bpd`` and its parts, and write L_t for every t to ``bound.parquet``.

    A draw of step i with importance weight w = 1 / (K p_i) gives the unbiased sample K w L_i of L_0 + sum
    L_t. The table of L_t against t contains unweighted means over the draws of each step.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / table.FILE_NAME
        self._window: BoundAccumulator | None = None  # since the last scalars
        self._steps: BoundAccumulator | None = None  # since the last rows of the table
        self._due = Due(1)
        self._loss = torch.zeros(2, dtype=torch.float64)  # sum and number of losses since the last scalars
        self._saved: dict[str, Any] | None = None  # the sums of every rank, from a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the accumulators; restore the sums of a checkpoint."""
        assert isinstance(pl_module, DiffusionModule)
        K = pl_module.bound.chain.num_steps
        self._window = BoundAccumulator(K, pl_module.device)
        self._steps = BoundAccumulator(K, pl_module.device)
        self._loss = torch.zeros(2, dtype=torch.float64, device=pl_module.device)
        self._due = Due(trainer.log_every_n_steps, trainer.global_step)  # pyright: ignore
        if self._saved is not None:
            self._restore(self._saved, trainer)
            self._saved = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add the batch; log every ``log_every_n_steps`` steps."""
        assert isinstance(pl_module, DiffusionModule)
        assert self._window is not None
        assert self._steps is not None
        draws = Draws(
            steps=outputs["index"].unsqueeze(1),
            weights=pl_module.bound.chain.num_steps * outputs["weight"].unsqueeze(1),
            nats=outputs["bound"].unsqueeze(1),
            prior=outputs["prior"],
        )
        self._window.add(draws)
        self._steps.add(draws)
        # Lightning has divided the loss by accumulate_grad_batches
        loss = outputs["loss"].detach().double() * trainer.accumulate_grad_batches
        self._loss += torch.stack([loss, torch.ones_like(loss)])
        if self._due(trainer):
            self._log(trainer, pl_module, self._window, self._loss)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows since the last validation."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the remaining rows."""
        self._write(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the sums since the last scalars and rows, stacked over the ranks."""
        if self._window is not None and self._steps is not None:
            checkpoint[LIVE_BOUND] = {
                "window": {name: stack_ranks(trainer, x) for name, x in self._window.sums.items()},
                "steps": {name: stack_ranks(trainer, x) for name, x in self._steps.sums.items()},
                "loss": stack_ranks(trainer, self._loss),
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the sums until the accumulators exist."""
        self._saved = checkpoint[LIVE_BOUND]

    def _restore(self, saved: dict[str, Any], trainer: Trainer) -> None:
        """Load the sums of this rank; if the number of ranks has changed, rank 0 gets the total."""
        assert self._window is not None
        assert self._steps is not None

        def mine(x: Tensor) -> Tensor:
            if len(x) == trainer.world_size:
                return x[trainer.global_rank]
            return x.sum(0) * (trainer.global_rank == 0)

        self._window.load_sums({name: mine(x) for name, x in saved["window"].items()})
        self._steps.load_sums({name: mine(x) for name, x in saved["steps"].items()})
        self._loss.copy_(mine(saved["loss"]))

    def _log(
        self, trainer: Trainer, pl_module: DiffusionModule, window: BoundAccumulator, loss: Tensor
    ) -> None:
        window.all_reduce_sum(partial(all_reduce_sum, trainer))
        all_reduce_sum(trainer, loss)
        pl_module.log("train/loss", loss[0] / loss[1], prog_bar=True)
        unit = pl_module.unit
        metrics = unit.metrics("train", window.estimate())
        bar = f"train/{unit.metric}"
        pl_module.log(bar, metrics.pop(bar), prog_bar=True)
        pl_module.log_dict(metrics)
        window.reset()
        loss.zero_()

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if self._steps is None:
            return
        self._steps.all_reduce_sum(partial(all_reduce_sum, trainer))
        steps = self._steps.step_table(pl_module.bound.chain.step_numbers)
        if trainer.is_global_zero and steps.drawn.any():
            table.append(self.path, trainer.global_step, "train", steps)
        self._steps.reset()
