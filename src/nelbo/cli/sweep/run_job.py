"""A job of a sweep, from the inside: in the process where a launcher runs it."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nelbo.cli.interrupted import INTERRUPTED
from nelbo.runs.folder_lock import FolderInUseError, locked
from nelbo.runs.job_status import JobStatus
from nelbo.text import printable

OUTPUT = "output.txt"  # of a job among several at a time
TRACEBACK_FILE = "traceback.txt"
OF_ONE_WANDB_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME")


def runs_in_sequence(hydra: "HydraConf | DictConfig") -> bool:
    """Whether the launcher runs jobs in sequence, in this process."""
    return hydra.runtime.choices["hydra/launcher"] == "basic"


def is_sweep_job() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def run_job(action: Callable[[], float | None], describe: Callable[[Exception], str]) -> None:
    """Run a job. A failure is printed in one line, stored in its folder, and does not stop the other jobs.

    The output of jobs that run in parallel is not mixed in one terminal: what a job prints goes into a file
    of its folder, and the terminal gets one line when it has ended.

    Args:
        action: the job.
        describe: what an error means.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    in_sequence = runs_in_sequence(hydra)
    named = f"job {hydra.sweep.subdir} ({hydra.job.name})"
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder))
        except FolderInUseError as error:  # another process runs this job
            print(f"{named}: {error}", file=sys.stderr, flush=True)
            return
        _run(action, describe, folder, in_sequence, named)


def _run(
    action: Callable[[], float | None],
    describe: Callable[[Exception], str],
    folder: Path,
    in_sequence: bool,
    named: str,
) -> None:
    if in_sequence:
        print(f"\n{named}", flush=True)
    started = time.perf_counter()
    failure = objective = None
    terminal = sys.stdout
    separate_wandb_run()
    with _interruption(in_sequence), _output(folder, in_sequence):
        try:
            objective = action()
        except Exception as error:
            failure = printable(describe(error))
            (folder / TRACEBACK_FILE).write_text(traceback.format_exc(), "utf-8", "backslashreplace")
    job_status = JobStatus(failure, objective, round(time.perf_counter() - started, 1))
    job_status.write(folder)
    if failure is not None:
        print(f"{named} failed: {failure}", file=sys.stderr, flush=True)
    elif not in_sequence:
        _print_end(named, job_status, terminal)


def separate_wandb_run() -> None:
    """Drop what names one W&B run from the environment: every job of a sweep has its own run."""
    for name in OF_ONE_WANDB_RUN:
        os.environ.pop(name, None)


def _print_end(named: str, job_status: JobStatus, terminal: TextIO) -> None:
    from nelbo.reports.numbers import duration

    value = "" if job_status.objective is None else f", val {job_status.objective:.4f}"
    print(f"{named} finished in {duration(job_status.seconds)}{value}", file=terminal, flush=True)


@contextmanager
def _output(folder: Path, in_sequence: bool) -> Iterator[None]:
    if in_sequence:
        yield
        return
    with (folder / OUTPUT).open("a", buffering=1, encoding="utf-8") as file, redirect_stdout(file):
        terminal = os.dup(1)
        os.dup2(file.fileno(), 1)  # the ranks of the job inherit it
        try:
            yield
        finally:
            os.dup2(terminal, 1)
            os.close(terminal)


@contextmanager
def _interruption(in_sequence: bool) -> Iterator[None]:
    """End the process of an interrupted parallel job. Otherwise its worker would start the next job.

    The terminal signals the process of the sweep only, which interrupts its workers once and waits for them.
    """
    if in_sequence:
        yield
        return
    if multiprocessing.parent_process() is not None:
        os.setpgid(0, 0)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        sys.stderr.flush()
        os._exit(INTERRUPTED)
