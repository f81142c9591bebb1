"""The end of a command that Ctrl-C has interrupted."""

import sys

INTERRUPTED = 130  # the exit code, as of a shell


def report_interruption(shown: bool = True) -> int:
    """The exit code, after one line on stderr unless another process prints it."""
    if shown:
        print("interrupted", file=sys.stderr)
    return INTERRUPTED
