"""``python -m nelbo <command>``: commands for finished runs."""

import sys
from argparse import ArgumentParser

from nelbo.cli import compare, export, report, workspace
from nelbo.cli.logging import replace_unprintable
from nelbo.text import printable

COMMANDS = (compare, report, export, workspace)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a failure is one line on stderr and exit code 1."""
    parser = ArgumentParser(prog="python -m nelbo", description="Commands for finished runs.")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for command in COMMANDS:
        summary = (command.__doc__ or "").splitlines()[0]
        name = command.__name__.rpartition(".")[2]
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    replace_unprintable()
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
