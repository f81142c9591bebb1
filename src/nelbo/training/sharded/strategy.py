"""The strategy of ``trainer=fsdp``."""

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy

from nelbo.connections import enable_keepalive
from nelbo.option_types import PositiveFloat


class FullySharded(ModelParallelStrategy):
    """Each process computes its rows of the batch and holds a shard of the weights.

    A checkpoint is one unsharded file, as for any other strategy.

    Args:
        timeout: seconds before a collective operation fails.
    """

    def __init__(self, timeout: PositiveFloat) -> None:
        limit = timedelta(seconds=timeout)
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=limit)

    def setup_environment(self) -> None:
        """Use all processes for data parallelism; a host that cannot be reached ends them."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        enable_keepalive()
