"""A callback that makes a run last long enough to reach the time limit of its job."""

import time

from lightning.pytorch import Callback


class SlowSteps(Callback):
    """Waits after every training step.

    Args:
        seconds: of each wait.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(self.seconds)
