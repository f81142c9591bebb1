"""The folder of a sweep: its configuration, from which it is resumed, and the table of its jobs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nelbo.atomic_file import replacing
from nelbo.cli.overrides import as_typed
from nelbo.cli.started import started_command
from nelbo.cli.sweep.job import Job
from nelbo.runs.paths import SWEEP, SWEEP_TABLE

MAX_JOBS = 10_000


class SweepFailedError(ValueError):
    """A sweep has ended with failed or interrupted jobs."""


@contextmanager
def sweep_folder(config: DictConfig, tries_again: bool = True) -> Iterator[list[Job]]:
    """Store the configuration of a sweep in its folder, and write the table at the end, also after a failure.

    Args:
        config: of the sweep.
        tries_again: whether failed jobs are run again when the sweep is resumed.

    Yields:
        A list to which the jobs are to be added as they become known.

    Raises:
        SweepFailedError: at the end, when some jobs failed.
    """
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / SWEEP) as unfinished:
        OmegaConf.save(config, unfinished)
    jobs: list[Job] = []
    try:
        yield jobs
    finally:
        if jobs:
            _show(folder, jobs, tries_again)
    missing = sum(not job.is_done() for job in jobs)
    if missing:
        raise SweepFailedError(f"{missing} of {len(jobs)} jobs did not finish: {folder / SWEEP_TABLE}")


def print_finished_jobs(jobs: Sequence[Job]) -> None:
    """A line for each job that is skipped."""
    for job in jobs:
        if job.is_done():
            print(f"job {job.name} ({job.title}) was finished before, and is skipped", flush=True)


def _show(folder: Path, jobs: Sequence[Job], tries_again: bool) -> None:
    from nelbo.reports.sweep import SweptRun, show_sweep

    rows, left = [], False
    for job in jobs:
        job_status = job.read_status()
        rows.append(SweptRun(job.name, job.folder, job.choices, job.is_begun, job_status))
        left |= job_status is None or (tries_again and job_status.failure is not None)
    show_sweep(folder, rows, f"{started_command().shown} {as_typed('resume', str(folder))}" if left else None)
