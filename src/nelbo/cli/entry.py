"""The start of train, evaluate and sample: imports, which take seconds, then the command."""

import sys
from importlib import import_module


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
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run(name, job, subcommand)
