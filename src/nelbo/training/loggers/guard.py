"""A logger that fails is disabled, so that training continues."""

import sys
from collections.abc import Callable


class Guard:
    """Runs actions of a logger until one fails, which gives one warning.

    Args:
        name: of the logger.
        remedy: the end of the warning.
        errors: types of errors that disable the logger. Others are raised.
    """

    def __init__(self, name: str, remedy: str, errors: tuple[type[Exception], ...]) -> None:
        self.name = name
        self.remedy = remedy
        self.errors = errors
        self.failed = False

    def __call__(self, action: Callable[[], object]) -> None:
        """Run ``action``, unless an earlier one has failed."""
        if self.failed:
            return
        try:
            action()
        except self.errors as error:
            self.failed = True
            text = (str(error).splitlines() or [""])[0]
            self.warn(f"{type(error).__name__}: {text}; nothing more is logged there")

    def warn(self, problem: str) -> None:
        """Print a problem and its remedy."""
        print(f"warning: {self.name}: {problem}; {self.remedy}", file=sys.stderr)
