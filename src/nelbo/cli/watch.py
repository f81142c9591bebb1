"""Show the report of runs in a browser while they train."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``nelbo watch``."""
    parser.add_argument(
        "runs",
        metavar="RUN_OR_FOLDER",
        nargs="+",
        type=Path,
        help="folder of a run, of a sweep, or of several runs; runs that appear in it are added",
    )
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)"
    )


def run(arguments: Namespace) -> None:
    """Serve the report until Ctrl-C.

    Raises:
        ValueError: for a folder that does not exist.
        OSError: for a port that cannot be used.
    """
    from nelbo.reports.watch import HOST, WatchedRuns, serve

    with serve(WatchedRuns(arguments.runs), arguments.port) as server:
        print(f"http://{HOST}:{server.server_address[1]}  (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)
