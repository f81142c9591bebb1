"""Exceptions of training that are reported to the user in one line."""


class NonFiniteLossError(RuntimeError):
    """The loss, or a weight, is NaN or infinite; the last good checkpoint is kept."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """The run was stopped by a signal.

    Args:
        signal: signal number.
        step: completed optimizer steps.
        in_validation: whether the validation after this step was stopped. A resumed run repeats it.

    Attributes:
        saved_step: of the last checkpoint, where there is one.
    """

    def __init__(self, signal: int, step: int, in_validation: bool = False) -> None:
        where = "in the validation after step" if in_validation else "at step"
        super().__init__(f"stopped {where} {step}")
        self.signal = signal
        self.step = step
        self.saved_step = step
