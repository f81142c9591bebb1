"""Keeping the terminal for what matters."""

import logging
import warnings


def quieten_libraries() -> None:
    """Keep advertisements, and warnings about what is meant to be so, out of the terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)
