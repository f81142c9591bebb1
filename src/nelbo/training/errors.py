"""Exceptions of training that are reported to the user in one line."""


class NonFiniteLossError(RuntimeError):
    """The loss, or a weight, is NaN or infinite; the last good checkpoint is kept."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """The run was stopped by a signal.

    Args:
        signal: signal number.
        step: completed optimizer steps.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal = signal
        self.step = step
