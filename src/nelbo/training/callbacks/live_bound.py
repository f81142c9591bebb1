"""The loss and the bound of the training batches, from their own predictions: no extra evaluation."""

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
from nelbo.training.ranks import all_reduce_sum

LIVE_BOUND = "live_bound"  # in a checkpoint


class LiveBound(Callback):
    """Log ``train/loss``, ``train/bpd`` and its parts, and keep L_t of every t for ``bound.parquet``.

    A draw of step i with importance weight w = 1 / (K p_i) is an unbiased sample K w L_i of L_0 + sum L_t.
    In the table of L_t against t the weight has no place: there, draws of one step are averaged as they are.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / "bound.parquet"
        self._window: BoundAccumulator | None = None  # since the last scalars
        self._steps: BoundAccumulator | None = None  # since the last rows of the table
        self._due = Due(1)
        self._loss = torch.zeros(2, dtype=torch.float64)  # sum and number of losses since the last scalars
        self._kept: Tensor | None = None  # the three of every rank, from a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        assert isinstance(pl_module, DiffusionModule)
        K = pl_module.bound.chain.num_steps
        self._window = BoundAccumulator(K, pl_module.device)
        self._steps = BoundAccumulator(K, pl_module.device)
        self._loss = torch.zeros(2, dtype=torch.float64, device=pl_module.device)
        self._due = Due(trainer.log_every_n_steps, trainer.global_step)  # pyright: ignore
        if self._kept is not None:
            self._take_up(self._kept, trainer)
            self._kept = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add the batch; log what the window says when it is time."""
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
        # Lightning hands the loss on divided by the number of batches that share an optimizer step
        loss = outputs["loss"].detach().double() * trainer.accumulate_grad_batches
        self._loss += torch.stack([loss, torch.ones_like(loss)])
        if self._due(trainer):
            self._log(trainer, pl_module, self._window, self._loss)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows since the last validation."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left."""
        self._write(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what was added up since the last scalars and rows, on each rank."""
        if self._window is not None and self._steps is not None:
            sums = torch.cat([self._window.sums, self._steps.sums, self._loss])
            every_rank = sums.new_zeros(trainer.world_size, len(sums))
            every_rank[trainer.global_rank] = sums
            all_reduce_sum(trainer, every_rank)
            checkpoint[LIVE_BOUND] = every_rank.cpu()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep it until there is something to add to."""
        self._kept = checkpoint[LIVE_BOUND]

    def _take_up(self, kept: Tensor, trainer: Trainer) -> None:
        """Each rank its own sums; if there were more or fewer ranks, the first one all of them."""
        assert self._window is not None
        assert self._steps is not None
        if len(kept) == trainer.world_size:
            mine = kept[trainer.global_rank]
        else:
            mine = kept.sum(0) * (trainer.global_rank == 0)
        window, steps = self._window.sums, self._steps.sums
        for sums, values in zip(
            (window, steps, self._loss), mine.split([len(window), len(steps), 2]), strict=True
        ):
            sums.copy_(values)

    def _log(
        self, trainer: Trainer, pl_module: DiffusionModule, window: BoundAccumulator, loss: Tensor
    ) -> None:
        all_reduce_sum(trainer, window.sums)
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
        all_reduce_sum(trainer, self._steps.sums)
        steps = self._steps.step_table()
        if trainer.is_global_zero and steps.count.sum() > 0:
            t = pl_module.bound.chain.timesteps()
            table.append(self.path, trainer.global_step, "train", t, steps)
        self._steps.reset()
