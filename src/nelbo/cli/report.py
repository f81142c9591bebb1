"""Write a self-contained HTML report of one or several runs."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo report``."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="folder of a run, an evaluation, a sweep, or of several runs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run's folder, or in the current folder for several runs",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="write a figure instead (.pdf, .png or .svg): mean and spread over seeds",
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="write the table of the runs instead (.csv or .tex)"
    )


def run(arguments: Namespace) -> None:
    """Write the report, or a figure and a table, and print their paths.

    Raises:
        ValueError: where no folder is named, or a file has another suffix than those known.
    """
    from nelbo.reports.html import write_report
    from nelbo.reports.paper import FIGURES, TABLES, check_suffix, write_figure, write_table
    from nelbo.reports.terminal import print_left_out
    from nelbo.runs.paths import REPORT
    from nelbo.runs.run_folder import read_runs, run_folders
    from nelbo.text import printable

    folders = run_folders(arguments.runs)
    if not folders:
        raise ValueError("no folder of a run is among these")
    figure, table = arguments.figure, arguments.table
    suffixes = {
        "--output": (arguments.output, (".html",)),
        "--figure": (figure, FIGURES),
        "--table": (table, TABLES),
    }
    for option, (path, known) in suffixes.items():
        if path is not None:
            check_suffix(option, path, known)
    if figure is None and table is None:
        output = arguments.output or (folders[0] if len(folders) == 1 else Path.cwd()) / REPORT
        problems, written = write_report(folders, output), [output]
    else:
        runs, problems = read_runs(folders)
        written = [path for path in (arguments.output, figure, table) if path is not None]
        if arguments.output is not None:
            write_report(folders, arguments.output)
        if figure is not None:
            write_figure(runs, figure)
        if table is not None:
            write_table(runs, table)
    print_left_out(problems)
    for path in written:
        print(printable(path))
