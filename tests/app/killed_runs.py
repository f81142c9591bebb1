"""Runs train.py in forks of one process that has imported everything, and kills some of them. A script.

Its argument is JSON, a list of [arguments of train.py, moment]. A moment is null for a run that is left alone,
otherwise [function, n]: the run kills itself when this function, as module:name, is called for the nth time.
Prints how each ended as a list: the exit code, or minus the signal.
"""

import importlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import torch

import nelbo.dashboard.report
import nelbo.dashboard.terminal
import nelbo.training.callbacks  # noqa: F401
from nelbo.app import build  # noqa: F401
from nelbo.app.command import run
from nelbo.app.train import train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(function: str, n: int) -> None:
    module, _, names = function.partition(":")
    *owners, name = names.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == n:
            if original is torch.save:
                write_half(*args)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def write_half(content, file) -> None:
    whole = io.BytesIO()
    torch.serialization.save(content, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()


def run_in_fork(arguments: list[str], moment: tuple[str, int] | None) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if moment is not None:
                kill_at(*moment)
            sys.argv = [str(Path(__file__).parents[2] / "train.py"), *arguments]
            code = 0
            run("train", train)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([run_in_fork(*job) for job in json.loads(sys.argv[1])]))
