"""The other processes of a job on this machine: started, watched and ended by the first one.

Each runs the command again with the options of this very job, so that a job of a multirun has processes of
its own. Lightning, told by ``LOCAL_RANK`` that they are there, starts none. torchrun and srun watch what they
start: nothing happens here then.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from nelbo.cli.overrides import quoted
from nelbo.compose.environment import rank as rank_of_agent
from nelbo.compose.environment import started_by
from nelbo.text import printable

ROOT = Path(__file__).parents[3]
STARTED_BY = "NELBO_STARTED_BY"  # process id of the first process, in the environment of the others
LAST_WORDS = "NELBO_LAST_WORDS"  # the file in which they say what went wrong
# what Lightning reads and sets for the processes of one job
VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
# what the torch of one process says when another one has gone
LOST = re.compile(r"DistStore|gloo|nccl|TCPStore|Connection (reset|closed|refused)|Broken pipe", re.I)
STALLED = re.compile(r"Timed out|timeout", re.I)  # and when it says nothing for as long as it is let
MOST_PROCESSES = 8  # that a machine of few cores is still asked to run
SECONDS_TO_LEAVE = 30.0  # for a process whose fellow died, before it is ended from outside
SECONDS_TO_EXPLAIN = 5.0  # for a fellow to die of what a lost connection tells
SECONDS_TO_FINISH = 60.0  # for the others to end when the job is done


class ProcessError(RuntimeError):
    """One of a job's processes failed, or died."""


class Launcher:
    """Starts the other processes of a job, and sees to it that all of them end together.

    A context: what was started inside it has ended after it, and the environment is as it was. There is one
    per process, :data:`launcher`, for there is one environment.
    """

    def __init__(self) -> None:
        self.others: list[subprocess.Popen[bytes]] = []
        self._describe: Callable[[], str] = str
        self._folder = ""
        self._before: dict[str, str | None] = {}
        self._threads = 0
        self._over = threading.Event()

    def __enter__(self) -> "Launcher":
        if STARTED_BY in os.environ:
            threading.Thread(target=self._end_with_the_first, daemon=True).start()
        return self

    def describe(self) -> str:
        """Where the job stands, as the end of a sentence about what ended it."""
        return self._describe()

    def start(self, count: int, script: str, describe: Callable[[], str] = str) -> None:
        """Start all but the first of a job's processes, unless they are there.

        Args:
            count: of the processes, this one included.
            script: that was called, beside ``conf``.
            describe: where the job stands, as the end of a sentence.

        Raises:
            ValueError: for many more processes than the machine has cores.
        """
        self._describe = describe
        if count == 1 or "LOCAL_RANK" in os.environ or started_by()[1] > 1:
            return
        cores = os.cpu_count() or 1
        if count > max(cores, MOST_PROCESSES):
            raise ValueError(f"{count} devices are too many for a machine of {cores} cores: use fewer")
        import torch

        self._before = {name: os.environ.get(name) for name in VARIABLES}
        self._threads = torch.get_num_threads()
        self._folder = tempfile.mkdtemp(prefix="nelbo-processes-")
        self._over = threading.Event()
        os.environ |= {
            "LOCAL_RANK": "0",
            "NODE_RANK": "0",
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        command, folder = _command_of_this_job(script)
        for rank in range(1, count):
            environment = os.environ | {
                "LOCAL_RANK": str(rank),
                STARTED_BY: str(os.getpid()),
                LAST_WORDS: str(self._last_words(rank)),
                "PYTHONWARNINGS": "ignore",  # the first process says it
            }
            self.others.append(subprocess.Popen(command, env=environment, cwd=folder))
        threading.Thread(target=self._watch, args=(self._over,), daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.others:
                self._end(error)
            elif error is not None and _lost_the_others(error) and _first_is_gone_soon():
                self._end_alone()
        finally:
            self._over.set()
            self._clean_up()

    def _end(self, error: BaseException | None) -> None:
        """Wait for the others, or end them.

        Raises:
            ProcessError: when it was one of the others that failed.
        """
        if error is None:
            _wait(self.others, SECONDS_TO_FINISH, lambda codes: None not in codes)
        elif _lost_the_others(error):  # one of them knows why, if it was not this process's own connection
            _wait(
                self.others,
                SECONDS_TO_EXPLAIN,
                lambda codes: None not in codes or self._blame(codes) is not None,
            )
        cause = self._blame([process.poll() for process in self.others])
        self._kill()
        if error is not None and not _lost_the_others(error):
            return  # this process knows best
        if cause is None and error is not None and STALLED.search(str(error)):
            cause = "no answer from the other processes for as long as trainer.strategy.timeout allows,"
        if cause is None and error is not None:
            cause = "lost the other processes"
        if cause is not None:
            raise ProcessError(cause + self.describe()) from error

    def _blame(self, codes: list[int | None]) -> str | None:
        """What the process that failed of itself died of; None if each is alive, done, or lost the others."""
        for rank, code in enumerate(codes, start=1):
            if not code:
                continue
            name, words = f"process {rank} of {len(codes) + 1}", self._last_words(rank)
            said = words.read_text().strip() if words.exists() else ""
            if code < 0:
                return f"{name} ended with signal {-code}"
            if not said:
                return f"{name} ended with exit code {code}"
            if not LOST.search(said):
                return f"{name}: {said}"
        return None

    def _watch(self, over: threading.Event) -> None:
        """Let nobody wait for a process that has gone: NCCL would, for as long as it is let."""
        while not any(process.poll() for process in self.others):
            if over.wait(0.2):
                return
        if not over.wait(SECONDS_TO_LEAVE):
            cause = self._blame([process.poll() for process in self.others]) or "lost the other processes"
            print(f"error: {cause}{self.describe()}", file=sys.stderr, flush=True)
            self._kill()
            os._exit(1)

    def _end_with_the_first(self) -> None:
        """End this process when the one that started it is no more."""
        while not _first_has_gone():
            time.sleep(0.5)
        time.sleep(SECONDS_TO_EXPLAIN)  # for what a broken connection ends already
        self._end_alone()

    def _end_alone(self) -> None:
        if os.environ["LOCAL_RANK"] == "1":  # one line in all
            print(f"error: process 0 ended{self.describe()}", file=sys.stderr, flush=True)
        os._exit(1)

    def _kill(self) -> None:
        for process in self.others:
            process.kill()  # which does nothing to one that has ended; a stopped one ends as well
            process.wait()

    def _clean_up(self) -> None:
        """Let the next job of a multirun find nothing of this one."""
        if "torch" in sys.modules:
            import torch.distributed

            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        if not self.others:
            return
        self.others.clear()
        shutil.rmtree(self._folder)
        sys.modules["torch"].set_num_threads(self._threads)
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def _last_words(self, rank: int) -> Path:
        return Path(self._folder) / str(rank)


launcher = Launcher()


def is_first_process() -> bool:
    """Whether this process is the first of its job, which writes its files, or the only one."""
    return STARTED_BY not in os.environ and (started_by()[1] == 1 or rank_of_agent() == 0)


def say(line: str) -> None:
    """Tell the user what went wrong; a process that another one started tells that one."""
    path = os.environ.get(LAST_WORDS)
    if path is None:
        print(printable(line), file=sys.stderr)
    else:
        Path(path).write_text(line.removeprefix("error: "))


def _command_of_this_job(script: str) -> tuple[list[str], str]:
    """What starts another process of the job that is running, and in which folder."""
    config = HydraConfig.get()
    ours = ("hydra.run.dir", "hydra.mode", "hydra.output_subdir")
    of_a_sweep = ("hydra/sweeper", "hydra/launcher", "hydra.sweeper.", "hydra.launcher.")
    options = [
        f"--config-name={config.job.config_name}",
        *(f"--config-dir={s.path}" for s in config.runtime.config_sources if s.provider == "command-line"),
        *config.overrides.task,
        *(
            option
            for option in config.overrides.hydra
            if (name := option.partition("=")[0].lstrip("+")) not in ours and not name.startswith(of_a_sweep)
        ),
        f"hydra.run.dir={quoted(config.runtime.output_dir)}",
        "hydra.mode=RUN",
        "hydra.output_subdir=null",  # the first process writes .hydra
    ]
    if config.mode == RunMode.MULTIRUN:  # names of runs are made of these
        options += [f"hydra.job.num={config.job.num}", f"hydra.job.id={quoted(str(config.job.id))}"]
    return [sys.executable, str(ROOT / script), *options], config.runtime.cwd


def _lost_the_others(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and LOST.search(f"{type(error).__name__} {error}") is not None


def _wait(
    processes: list[subprocess.Popen[bytes]], seconds: float, enough: Callable[[list[int | None]], bool]
) -> None:
    until = time.monotonic() + seconds
    while not enough([process.poll() for process in processes]) and time.monotonic() < until:
        time.sleep(0.05)


def _first_has_gone() -> bool:
    return os.getppid() != int(os.environ[STARTED_BY])


def _first_is_gone_soon() -> bool:
    """Whether that is why the connection was lost: it goes before the process does."""
    until = time.monotonic() + SECONDS_TO_EXPLAIN
    while STARTED_BY in os.environ and not _first_has_gone() and time.monotonic() < until:
        time.sleep(0.05)
    return STARTED_BY in os.environ and _first_has_gone()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
