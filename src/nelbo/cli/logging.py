"""Output of the terminal: warnings of libraries, and characters that it cannot print."""

import io
import logging
import sys
import warnings

from nelbo.text import printable_lines


def quieten_libraries() -> None:
    """Hide advertisements of libraries and warnings about intended behaviour."""
    import lightning.pytorch  # noqa: F401  sets the levels of its loggers when it is imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*treespec, LeafSpec.*",
        ".*WeightAveraging callback with a model that overrides.*",
        ".*FSDP2-wrapped module .* returned a view.*",  # which nobody writes to
        ".*distributed.nn.functional.all_gather is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
    replace_unprintable()  # in a job of a sweep, which is another process


def replace_unprintable() -> None:
    """Print ``?`` for characters that the terminal lacks, and no control codes of files in warnings."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable_lines(message)}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
