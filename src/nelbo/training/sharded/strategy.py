"""The strategy of ``trainer=fsdp``."""

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy

from nelbo.option_types import PositiveFloat


class FullySharded(ModelParallelStrategy):
    """Every process computes with its rows of the batch, and keeps its part of the weights.

    Checkpoints are whole, in one file like those of any other run.

    Args:
        timeout: seconds that a process waits for another before it gives up.
    """

    def __init__(self, timeout: PositiveFloat) -> None:
        limit = timedelta(seconds=timeout)
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=limit)

    def setup_environment(self) -> None:
        """Join the other processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
