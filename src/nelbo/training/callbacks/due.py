"""Trigger an action every n optimizer steps."""

from lightning import Trainer


class Due:
    """True once per multiple of ``every`` optimizer steps.

    With gradient accumulation, several calls of ``on_train_batch_end`` see the same optimizer step.

    Args:
        every: optimizer steps between two triggers.
        since: optimizer steps at the start of this process; this step does not trigger again.
    """

    def __init__(self, every: int, since: int = 0) -> None:
        self.every = every
        self._last = since

    def __call__(self, trainer: Trainer) -> bool:
        """Whether the action is due. Call it once per batch, at its end."""
        step = trainer.global_step
        if step == self._last or step % self.every:
            return False
        self._last = step
        return True
