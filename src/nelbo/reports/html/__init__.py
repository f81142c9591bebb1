"""The report: one self-contained HTML file of one run, or of several beside each other."""

from collections.abc import Sequence
from pathlib import Path

from nelbo.atomic_file import replacing
from nelbo.runs.paths import REPORT
from nelbo.runs.run_folder import RunFolderError, read_run


class ReportError(OSError):
    """A report that could not be made, of a run whose results are complete."""


def write_report(folders: Sequence[Path], output: Path) -> None:
    """Read the runs and write their report; a reader sees the file before or after, never between.

    Raises:
        RunFolderError: for a folder that is no run, or a file in it that is broken.
        OSError: when the report cannot be written.
    """
    from nelbo.reports.html.page import render  # takes half a second to import

    page = render([read_run(folder) for folder in folders])
    with replacing(output) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


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
