"""Count training images that cannot be read, and list them in ``unreadable.txt``."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.data import DataModule
from nelbo.data.loader import Loader
from nelbo.training.ranks import all_reduce_sum, stack_ranks

SKIPPED = "skipped"  # in a checkpoint


class CorruptImages(Callback):
    """Log ``data/skipped``, the number of replaced examples of an epoch, and write their names to a file.

    Nothing is logged for an epoch without such examples. Relevant with ``data.on_corrupt=skip``; by default
    the first unreadable example is an error.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / "unreadable.txt"
        self._named: set[str] = set()
        self._skipped = 0  # in this epoch, on this rank
        self._restored: Tensor | None = None  # (ranks,) counts from a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List the examples that ``setup`` left out; restore the count of a checkpoint."""
        if self.path.exists():
            self._named.update(self.path.read_text("utf-8", "surrogateescape").splitlines())
        if self._restored is not None:
            same = len(self._restored) == trainer.world_size
            total = int(self._restored.sum()) if trainer.is_global_zero else 0
            self._skipped = int(self._restored[trainer.global_rank]) if same else total
            self._restored = None
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, DataModule)
        if trainer.is_global_zero:
            for names in data.left_out.values():
                self._name(names)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the replaced examples of the batch."""
        loader = trainer.train_dataloader
        assert isinstance(loader, Loader)
        names = loader.take_unreadable()
        self._skipped += len(names)
        self._name(names)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the count of the current epoch, (ranks,)."""
        count = torch.tensor(self._skipped, dtype=torch.float64, device=pl_module.device)
        checkpoint[SKIPPED] = stack_ranks(trainer, count)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the counts until training starts."""
        self._restored = checkpoint.get(SKIPPED)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the count of the epoch, if it is not 0."""
        skipped = torch.tensor([float(self._skipped)], dtype=torch.float64, device=pl_module.device)
        all_reduce_sum(trainer, skipped)
        self._skipped = 0
        if skipped.item() == 0:
            return
        pl_module.log("data/skipped", skipped.item())
        if trainer.is_global_zero:
            print(
                f"warning: epoch {trainer.current_epoch}: {int(skipped.item())} training images could not be "
                f"read and were replaced by others; they are listed in {self.path}",
                file=sys.stderr,
            )

    def _name(self, names: list[str]) -> None:
        """Append new names to the file. All ranks write to it."""
        new = [name for name in dict.fromkeys(names) if name not in self._named]
        if new:
            self._named.update(new)
            with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{name}\n" for name in new)
