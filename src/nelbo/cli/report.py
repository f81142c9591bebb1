"""Write a self-contained HTML report of one or several runs."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo report``."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="folder of a run, an evaluation or a sweep"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run's folder, or in the current folder for several runs",
    )


def run(arguments: Namespace) -> None:
    """Write the report and print its path.

    Raises:
        ValueError: where no folder is named.
    """
    from nelbo.reports.html import write_report
    from nelbo.runs.paths import REPORT
    from nelbo.runs.run_folder import run_folders
    from nelbo.text import printable

    runs = run_folders(arguments.runs)
    if not runs:
        raise ValueError("no folder of a run is among these")
    output = arguments.output or (runs[0] if len(runs) == 1 else Path.cwd()) / REPORT
    for problem in write_report(runs, output):
        print(f"left out: {printable(str(problem))}", file=sys.stderr)
    print(printable(output))
