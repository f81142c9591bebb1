"""The strategy of ``trainer=ddp``."""

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy

from nelbo.option_types import PositiveFloat


def data_parallel(timeout: PositiveFloat) -> DDPStrategy:
    """Every process computes with its rows of the batch, and has all of the weights.

    Args:
        timeout: seconds that a process waits for another before it gives up.
    """
    # the view spares a copy of the gradients
    return DDPStrategy(timeout=timedelta(seconds=timeout), gradient_as_bucket_view=True)
