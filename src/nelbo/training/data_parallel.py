"""The strategy of ``trainer=ddp``."""

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy

from nelbo.connections import enable_keepalive
from nelbo.option_types import PositiveFloat


class DataParallel(DDPStrategy):
    """DDP that fails within seconds when a host cannot be reached."""

    def setup_environment(self) -> None:
        """Connect the processes."""
        super().setup_environment()
        enable_keepalive()


def data_parallel(timeout: PositiveFloat) -> DDPStrategy:
    """Each process computes its rows of the batch with a full copy of the weights.

    Args:
        timeout: seconds before a collective operation fails.
    """
    # the view avoids a copy of the gradients
    return DataParallel(timeout=timedelta(seconds=timeout), gradient_as_bucket_view=True)
