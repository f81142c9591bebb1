"""What can go wrong in training and must reach the user as one line."""


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the last good checkpoint is kept."""
