"""The strategy of ``trainer=ddp``."""

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy

from nelbo.option_types import PositiveFloat


def data_parallel(timeout: PositiveFloat) -> DDPStrategy:
    """Each process computes its rows of the batch with a full copy of the weights.

    Args:
        timeout: seconds before a collective operation fails.
    """
    # the view avoids a copy of the gradients
    return DDPStrategy(timeout=timedelta(seconds=timeout), gradient_as_bucket_view=True)
