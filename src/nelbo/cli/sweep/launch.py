"""Launch the jobs that are not done, resume the others when a worker dies, and end all on Ctrl-C."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from hydra.plugins.launcher import Launcher

from nelbo.cli.sweep.job import Job
from nelbo.runs.job_status import JobStatus

SECONDS_FOR_WORKERS = 60.0  # that workers have after Ctrl-C


def launch_jobs(launcher: Launcher, jobs: Sequence[Job], in_sequence: bool) -> None:
    """Run the jobs that are not done; each writes its status to its folder.

    If a worker is killed, for example because memory ran out, a launcher stops all its workers. The jobs that
    were running are then resumed one at a time, which isolates the one that fails, and then the others.

    Args:
        launcher: of the sweep.
        jobs: to run.
        in_sequence: whether the launcher runs them in this process.
    """
    waiting = [job for job in jobs if not job.is_done()]
    if not waiting:
        return
    for job in waiting:
        job.clear()
    arguments = [job.arguments() for job in waiting]
    try:
        with nullcontext() if in_sequence else _workers_save_first():
            launcher.launch(arguments, initial_job_idx=0)
    except Exception as error:  # a launcher that loses a worker may raise anything
        if len(waiting) == 1:
            _died(waiting[0], error)
            return
        lost = [job for job in waiting if job.is_begun and job.read_status() is None]
        if not lost:
            raise
        for job in lost:
            launch_jobs(launcher, [job], in_sequence)
        launch_jobs(launcher, [job for job in waiting if not job.is_begun], in_sequence)


def _died(job: Job, error: Exception) -> None:
    reason = f"its process died: {type(error).__name__}: {' '.join(str(error).split())}"
    job.folder.mkdir(parents=True, exist_ok=True)
    JobStatus(reason, None, 0.0).write(job.folder)
    print(f"job {job.name} ({job.title}) failed: {reason}", file=sys.stderr, flush=True)


@contextmanager
def _workers_save_first() -> Iterator[None]:
    """On a signal, interrupt the workers, wait until they have saved, and then stop the launcher.

    A second Ctrl-C does not wait.
    """

    def interrupt(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        workers = multiprocessing.active_children()
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)
        until = time.monotonic() + SECONDS_FOR_WORKERS
        for worker in workers:
            worker.join(max(until - time.monotonic(), 0.0))
        if number == signal.SIGTERM:
            sys.exit(128 + number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
