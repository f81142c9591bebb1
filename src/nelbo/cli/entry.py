"""The start of train, evaluate and sample: imports, which take seconds, then the command."""

import sys
from importlib import import_module

from nelbo.cli.interrupted import report_interruption


def start(name: str, subcommand: str | None = None) -> None:
    """Import a command and run it on the command line.

    Args:
        name: ``train``, ``evaluate`` or ``sample``.
        subcommand: of ``nelbo`` that was typed; None for a script of its own.
    """
    try:
        from nelbo.cli.command import run

        job = getattr(import_module(f"nelbo.cli.{name}"), name)
    except KeyboardInterrupt:
        sys.exit(report_interruption())
    run(name, job, subcommand)
