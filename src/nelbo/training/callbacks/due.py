"""When something that happens every n optimizer steps is due."""

from lightning import Trainer


class Due:
    """True once at every multiple of ``every`` optimizer steps.

    Lightning calls ``on_train_batch_end`` for every batch; with gradient accumulation several batches see the
    same optimizer step.

    Args:
        every: optimizer steps.
        since: optimizer steps so far, where a resumed run has been called already.
    """

    def __init__(self, every: int, since: int = 0) -> None:
        self.every = every
        self._last = since

    def __call__(self, trainer: Trainer) -> bool:
        """Ask at the end of a batch."""
        step = trainer.global_step
        if step == self._last or step % self.every:
            return False
        self._last = step
        return True
