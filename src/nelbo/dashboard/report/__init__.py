"""The report: one self-contained HTML file of one run, or of several beside each other."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from nelbo.atomic_file import replacing
from nelbo.dashboard.run_folder import RunFolderError, read_run

FILE_NAME = "report.html"


def write_report(folders: Sequence[Path], output: Path) -> None:
    """Read the runs and write their report; a reader sees the file before or after, never between.

    Raises:
        RunFolderError: for a folder that is no run, or a file in it that is broken.
        OSError: when the report cannot be written.
    """
    from nelbo.dashboard.report.page import render  # takes half a second to import

    page = render([read_run(folder) for folder in folders])
    with replacing(output) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def report_finished_run(run_dir: Path) -> None:
    """Write a run's report into its folder. A finished training is not lost for want of a page about it."""
    try:
        write_report([run_dir], run_dir / FILE_NAME)
    except (RunFolderError, OSError) as error:
        warnings.warn(f"no {FILE_NAME}: {error}", stacklevel=2)
