"""The report: one self-contained HTML file of one run or of several runs."""

from collections.abc import Sequence
from pathlib import Path

from nelbo.atomic_file import replacing
from nelbo.runs.files import RunFolderError
from nelbo.runs.paths import REPORT
from nelbo.runs.run_folder import read_runs


class ReportError(OSError):
    """A report that could not be made, of a run whose results are complete."""


def write_report(folders: Sequence[Path], output: Path) -> list[RunFolderError]:
    """Read the runs and write their report; a reader sees the file before or after, never between.

    Returns:
        What is wrong with the folders that are left out.

    Raises:
        RunFolderError: when none of the folders is a run that can be read.
        OSError: when the report cannot be written.
    """
    from nelbo.reports.html.page import render  # takes half a second to import

    runs, problems = read_runs(folders)
    page = render(runs)
    with replacing(output) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return problems


def report_finished_run(run_dir: Path) -> None:
    """Write a run's report into its folder. Its results are there already, and are kept when this fails.

    Raises:
        ReportError: when the report cannot be made or written.
    """
    try:
        write_report([run_dir], run_dir / REPORT)
    except (RunFolderError, OSError) as error:
        raise ReportError(
            f"the run is finished, but there is no {REPORT}: {error}; make it later with: "
            f"python -m nelbo report {run_dir}"
        ) from error
