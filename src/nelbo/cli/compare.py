"""Compare the bounds of runs: by how much they differ, with errors, and where on the chain."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo compare``."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="folder of a run, an evaluation, a sweep, or of several runs",
    )
    parser.add_argument(
        "--baseline",
        type=int,
        metavar="N",
        help="number of the run that the others are compared with (default: the first that can be read)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the comparison to this file")


def run(arguments: Namespace) -> None:
    """Print the comparison.

    Raises:
        ValueError: for fewer than two runs, or a baseline outside 1..number of runs.
    """
    import json

    from nelbo.reports.comparison.compare import check_measured, compare
    from nelbo.reports.comparison.tables import print_comparison
    from nelbo.reports.terminal import make_console, print_left_out
    from nelbo.runs.files import RunFolderError
    from nelbo.runs.run_folder import read_runs, run_folders
    from nelbo.text import printable

    paths = run_folders(arguments.runs)
    if len(paths) < 2:
        raise ValueError("a comparison takes at least two different runs")
    if arguments.baseline is not None:
        if not 1 <= arguments.baseline <= len(paths):
            raise ValueError(f"--baseline {arguments.baseline}: there are {len(paths)} runs")
        paths.insert(0, paths.pop(arguments.baseline - 1))
    found, problems = read_runs(paths)
    runs = []
    for one in found:
        try:
            check_measured(one)
            runs.append(one)
        except RunFolderError as error:
            problems.append(error)
    if problems and (len(runs) < 2 or (arguments.baseline is not None and runs[0].path != paths[0])):
        raise problems[0]
    comparison = compare(runs)
    print_left_out(problems)
    print_comparison(comparison, make_console())
    if arguments.json:
        arguments.json.write_text(json.dumps(comparison.to_dict(), indent=2) + "\n")
        print(printable(arguments.json))
