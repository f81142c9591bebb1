"""Runs train.py in forks of one process that has imported and composed everything, and kills some of them.

A script: python killed_runs.py FOLDER MOMENTS OPTION... MOMENTS is JSON, a list of [function, n, signal]: the
run in FOLDER/0 sends itself the signal (SIGKILL where there is none) when the first function, as module:name,
is called for the nth time, and is resumed; and so on. The run in FOLDER/whole is left alone. Prints how each
ended: the exit code, or minus the signal.
"""

import importlib
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import nelbo.reports.html
import nelbo.reports.terminal
from nelbo.cli.command import run
from nelbo.cli.train import train
from nelbo.compose import build


def kill_at(function: str, n: int, number: str = "SIGKILL") -> None:
    module, _, names = function.partition(":")
    *owners, name = names.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == n:
            if original is torch.save and number == "SIGKILL":
                write_half(*args)
            os.kill(os.getpid(), signal.Signals[number])
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def write_half(content, file) -> None:
    whole = io.BytesIO()
    torch.serialization.save(content, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()


def in_fork(config: DictConfig, folder: Path, moment: tuple | None = None) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if moment is not None:
                kill_at(*moment)
            config.run_dir = str(folder)
            (folder / ".hydra").mkdir(parents=True, exist_ok=True)
            if config.resume is None:
                OmegaConf.save(config, folder / ".hydra/config.yaml")
                shutil.copy(
                    Path(HydraConfig.get().runtime.output_dir) / ".hydra/overrides.yaml", folder / ".hydra"
                )
            train(config)
            code = 0
        except SystemExit as ended:
            code = ended.code
        except KeyboardInterrupt:
            code = 130
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def import_all(config: DictConfig) -> None:
    data = instantiate(config.data)
    data.setup()
    module = build.build_module(config, data.spec)
    instantiate(config.optimizer)(module.parameters())
    build.build_trainer(config, build.build_callbacks(config, data.spec, module.bound.chain), [])


def job(config: DictConfig) -> None:
    import_all(config)
    codes = [in_fork(config, folder / "whole")]
    for number, moment in enumerate(json.loads(moments)):
        where = folder / str(number)
        config.resume = None
        codes.append(in_fork(config, where, moment))
        config.resume = str(where)
        codes.append(in_fork(config, where))
    print(json.dumps(codes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    nelbo.reports.html.report_finished_run = lambda run_dir: None  # it takes as long as a run
    folder, moments, *options = sys.argv[1:]
    folder = Path(folder)
    sys.argv = ["train.py", f"hydra.run.dir={folder}/hydra", *options]
    run("train", job)
