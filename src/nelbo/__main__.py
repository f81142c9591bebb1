"""``nelbo <command>``, also ``python -m nelbo <command>``.

``train``, ``evaluate`` and ``sample`` have options of Hydra and are the same as ``train.py``, ``evaluate.py``
and ``sample.py``. The others have arguments of their own.
"""

import sys
from argparse import ArgumentParser
from importlib import import_module

from nelbo.cli.interrupted import report_interruption
from nelbo.text import printable

HYDRA_COMMANDS = {
    "train": "Train a model: schedule=cosine loss=vlb. All options: nelbo train --help.",
    "evaluate": "Measure the bound of a trained model: checkpoint=FILE.",
    "sample": "Generate samples of a trained model: checkpoint=FILE.",
}
COMMANDS = ("compare", "report", "watch", "export", "compress", "decompress", "workspace", "new")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a failure is one line on stderr and exit code 1."""
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if arguments[0] in HYDRA_COMMANDS:
        from nelbo.cli.entry import start

        sys.argv[1:] = arguments[1:]
        start(arguments[0], subcommand=arguments[0])
        return 0
    from nelbo.cli.logging import replace_unprintable

    parsed = _parser().parse_args(arguments)
    replace_unprintable()
    try:
        parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return report_interruption()
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="nelbo", description="Train diffusion models and measure their bound.")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for name, summary in HYDRA_COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    for name in COMMANDS:
        command = import_module(f"nelbo.cli.{name}")
        summary = (command.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
