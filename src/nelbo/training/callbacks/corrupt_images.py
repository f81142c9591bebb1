"""Training images that could not be read: counted, and named in ``unreadable.txt``."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.data import DataModule
from nelbo.data.loader import Loader
from nelbo.training.ranks import all_reduce_sum

SKIPPED = "skipped"  # in a checkpoint


class CorruptImages(Callback):
    """Log ``data/skipped``, how many examples of the epoch another one stood in for, and name them in a file.

    Nothing is logged of an epoch that was read whole, and without such examples there is no file. Data sets
    stop at the first example that cannot be read unless they are told to skip it.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / "unreadable.txt"
        self._named: set[str] = set()
        self._skipped = 0  # in this epoch, on this rank
        self._kept: Tensor | None = None  # of every rank, from a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name what was left out from the beginning; take up what a checkpoint counted."""
        if self.path.exists():
            self._named.update(self.path.read_text().splitlines())
        if self._kept is not None:
            same = len(self._kept) == trainer.world_size
            total = int(self._kept.sum()) if trainer.is_global_zero else 0
            self._skipped = int(self._kept[trainer.global_rank]) if same else total
            self._kept = None
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, DataModule)
        if trainer.is_global_zero:
            for names in data.left_out.values():
                self._name(names)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what was passed over."""
        loader = trainer.train_dataloader
        assert isinstance(loader, Loader)
        names = loader.take_unreadable()
        self._skipped += len(names)
        self._name(names)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the count of the current epoch, of each rank."""
        every_rank = torch.zeros(trainer.world_size, dtype=torch.float64, device=pl_module.device)
        every_rank[trainer.global_rank] = self._skipped
        all_reduce_sum(trainer, every_rank)
        checkpoint[SKIPPED] = every_rank.cpu()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep it until training starts."""
        self._kept = checkpoint.get(SKIPPED)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch."""
        skipped = torch.tensor([float(self._skipped)], dtype=torch.float64, device=pl_module.device)
        all_reduce_sum(trainer, skipped)
        self._skipped = 0
        if skipped.item() == 0:
            return
        pl_module.log("data/skipped", skipped.item())
        if trainer.is_global_zero:
            print(
                f"warning: epoch {trainer.current_epoch}: {int(skipped.item())} training images could not be "
                f"read, and others stood in for them; {self.path} names them",
                file=sys.stderr,
            )

    def _name(self, names: list[str]) -> None:
        """Add the names that are new to the file, which all ranks write to."""
        new = [name for name in dict.fromkeys(names) if name not in self._named]
        if new:
            self._named.update(new)
            with self.path.open("a") as file:
                file.writelines(f"{name}\n" for name in new)
