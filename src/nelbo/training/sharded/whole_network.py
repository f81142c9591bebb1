"""The unsharded network for evaluations with ``trainer=fsdp``."""

from lightning import Callback, LightningModule, Trainer

from nelbo.training.sharded.weights import reshard, unshard


class WholeNetwork(Callback):
    """Gather the weights once per evaluation, instead of once per batch.

    The network then needs no communication, so processes may have different numbers of batches, and rank 0
    can draw samples alone. This takes 4 bytes per parameter.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the weights, after the average was swapped in."""
        unshard(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reshard."""
        reshard(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the weights."""
        unshard(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reshard."""
        reshard(pl_module)
