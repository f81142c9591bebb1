"""``checkpoints/best.ckpt``: the model with the lowest bound on the validation split."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from nelbo.training.checkpoint_io import write_checkpoint
from nelbo.training.module import DiffusionModule


class BestCheckpoint(Checkpoint):
    """Save after each validation that improves on all earlier ones.

    Args:
        folder: of ``best.ckpt``.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "best.ckpt"
        self.best = float("inf")
        self.step: int | None = None  # optimizer steps at the best validation

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the bound is the lowest so far."""
        assert isinstance(pl_module, DiffusionModule)
        value = trainer.callback_metrics.get(f"val/{pl_module.unit.metric}")  # None without ValidationBound
        if trainer.state.fn == "fit" and value is not None and value < self.best:
            self.best, self.step = float(value), trainer.global_step
            write_checkpoint(trainer, self.path)

    def state_dict(self) -> dict[str, Any]:
        """The lowest bound and its optimizer step."""
        return {"best": self.best, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        self.best, self.step = state_dict["best"], state_dict["step"]
