"""What can go wrong in training and must reach the user as one line."""


class NonFiniteLossError(RuntimeError):
    """The loss, or a weight, is NaN or infinite; the last good checkpoint is kept."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A signal asked the run to stop, and it has.

    Args:
        signal: its number.
        step: optimizer steps so far.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal = signal
        self.step = step
