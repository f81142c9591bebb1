"""The ranks of a job on this machine, started and watched by torch's elastic agent.

A command whose job has several processes becomes their agent: it holds the lock of the run folder, and every
rank runs the same command with the options of this job, which may be one of a multirun.
torchrun and srun start their processes themselves; nothing happens here then.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from nelbo.atomic_file import replacing
from nelbo.cli.error_message import LOST_CONNECTION, NO_ANSWER
from nelbo.cli.overrides import WITHOUT_HYDRA_FILES, option_name, quoted
from nelbo.cli.started import started_command
from nelbo.compose.config import CONFIG_DIR
from nelbo.compose.environment import process_count, rank
from nelbo.text import printable

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

RESULT = "NELBO_RESULT"  # in the environment of a rank: the file for what the job returns
# passed on to the ranks
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
MAX_PROCESSES = 8  # allowed on a machine with fewer cores
SECONDS_TO_SAVE = 3600  # for the ranks to stop after a signal; a second Ctrl-C does not wait


class ProcessError(RuntimeError):
    """A rank of a job failed, or died."""


def is_launched() -> bool:
    """Whether this process is a rank that :func:`launch_ranks` started."""
    return RESULT in os.environ


def is_first_process() -> bool:
    """Whether this process is the one that owns the run folder: the agent, or the first of torchrun's."""
    return not is_launched() and (process_count() == 1 or rank() == 0)


def needs_launch(count: int) -> bool:
    """Whether this command has to start the ``count`` processes of its job.

    Raises:
        ValueError: for many more processes than the machine has cores.
    """
    if count == 1 or process_count() > 1:
        return False
    cores = os.cpu_count() or 1
    if count > max(cores, MAX_PROCESSES):
        raise ValueError(f"{count} devices are too many for a machine of {cores} cores: use fewer")
    return True


def launch_ranks(count: int, describe: Callable[[], str] = lambda: "") -> float | None:
    """Run the current job on several processes, and return what its first rank returns.

    When a rank fails or dies, the others are ended. A signal is passed on to all ranks.

    Args:
        count: number of processes.
        describe: the state of the job, appended to the message of an error.

    Raises:
        ProcessError: with the message of the rank that failed first.
        SystemExit: with the exit code of a job that was stopped by a signal.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="nelbo-") as folder, _restored():
        result = Path(folder) / "result.json"
        os.environ[RESULT] = str(result)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(_handled()),
            shutdown_timeout=SECONDS_TO_SAVE,
        )
        try:
            elastic_launch(config, entrypoint=sys.executable)(
                *started_command().words, *_options_of_this_job()
            )
        except ChildFailedError as error:
            failure = min(error.failures.values(), key=_order)
            if failure.exitcode > 128 and not _message(failure):  # stopped by a signal to this rank alone
                sys.exit(failure.exitcode)
            raise ProcessError(f"{_cause(failure, count)}{describe()}") from error
        except SignalException as stop:
            sys.exit(128 + stop.sigval)
        return json.loads(result.read_text()) if result.exists() else None


def end_with_agent() -> None:
    """Let the kernel end this rank when its agent is gone; called at its start."""
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # pyright: ignore

    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit(1)


def write_result(value: float | None) -> None:
    """Pass what the job returns from the first rank to its agent."""
    if is_launched() and rank() == 0:
        Path(os.environ[RESULT]).write_text(json.dumps(value))


def report_error(message: str) -> None:
    """Print an error, or pass it from a rank to its agent, which prints the one that came first."""
    if is_launched():
        content = {"message": message, "timestamp": int(time.time())}
        # whole or not at all: the agent reads it when another rank fails
        with replacing(Path(os.environ["TORCHELASTIC_ERROR_FILE"])) as unfinished:
            unfinished.write_text(json.dumps(content))
    else:
        print(printable(f"error: {message}"), file=sys.stderr)


def _options_of_this_job() -> list[str]:
    """The command line of a rank of the job that is running."""
    config = HydraConfig.get()
    ours = ("hydra.run.dir", "hydra.mode", "hydra.output_subdir")
    of_a_sweep = ("hydra/sweeper", "hydra/launcher", "hydra.sweeper.", "hydra.launcher.")
    options = [
        f"--config-name={config.job.config_name}",
        *(
            f"--config-path={source.path}"
            for source in config.runtime.config_sources
            if source.provider == "main" and source.path != str(CONFIG_DIR)
        ),
        *config.overrides.task,
        *(
            option
            for option in config.overrides.hydra
            if (name := option_name(option)) not in ours and not name.startswith(of_a_sweep)
        ),
        f"hydra.run.dir={quoted(config.runtime.output_dir)}",
        "hydra.mode=RUN",
        WITHOUT_HYDRA_FILES,
    ]
    if config.mode == RunMode.MULTIRUN:  # names of runs contain these
        options += [f"hydra.job.num={config.job.num}", f"hydra.job.id={quoted(str(config.job.id))}"]
    return options


def _handled() -> list[str]:
    """Signals to pass on: not those that this process ignores, as under nohup."""
    return [number.name for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def _restored() -> Iterator[None]:
    """Restore the environment and the signal handlers, which the agent replaces."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _order(failure: "ProcessFailure") -> tuple[int, float]:
    """Which of several failures is the cause: errors first, those that follow from another one last."""
    message, file = _message(failure), Path(failure.error_file)
    followers = {NO_ANSWER: 1, LOST_CONNECTION: 4}
    if message:
        return followers.get(message, 0), file.stat().st_mtime
    if failure.exitcode == -signal.SIGTERM:  # sent by the agent
        return 5, 0.0
    return (2 if failure.exitcode < 0 else 3), 0.0


def _message(failure: "ProcessFailure") -> str:
    return failure.message if Path(failure.error_file).exists() else ""


def _cause(failure: "ProcessFailure", count: int) -> str:
    message, name = _message(failure), f"process {failure.local_rank} of {count}"
    if message:
        return message if failure.local_rank == 0 else f"{message} ({name})"
    if failure.exitcode < 0:
        return f"{name} ended with signal {-failure.exitcode}"
    return f"{name} ended with exit code {failure.exitcode}"
