"""With ``trainer=fsdp``, the whole network on every process while it is evaluated."""

from lightning import Callback, LightningModule, Trainer

from nelbo.training.sharded.weights import reshard, unshard


class WholeNetwork(Callback):
    """Gather the weights once for an evaluation, instead of once for every batch.

    Processes may then have different numbers of batches, and the first may draw samples alone: no evaluation
    of the network waits for another process. It takes 4 bytes a parameter, of the 20 that training would.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the average was swapped in."""
        unshard(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to training."""
        reshard(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the test."""
        unshard(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the test."""
        reshard(pl_module)
