"""What the tests of several rooms need: composed configurations, tiny runs, and commands run in process."""

import contextlib
import copy
import importlib
import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Unpack, get_args, get_origin

import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

import nelbo  # noqa: F401  # before Lightning and torchvision, which it makes importable

ROOT = Path(__file__).parents[1]

# A shell that runs the tests in the background ignores these signals, and processes inherit that.
for interrupt in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(interrupt) == signal.SIG_IGN:
        signal.signal(interrupt, signal.SIG_DFL)

torch.set_num_threads(1)  # tensors here are small, and other tests run beside this one

# a network and a run that take a second on one core
TINY = (
    "model=mlp",
    "model.width=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=2",
    "lr_schedule.warmup_steps=0",
    "val_estimator.evaluations_per_example=3",
    "test_estimator.evaluations_per_example=4",
    "sampler.steps=2",
    "callbacks.samples.num_samples=4",
    "checkpoint_every=2",
)


@pytest.fixture(autouse=True, scope="session")
def _no_account():
    """No test reaches a W&B account that the machine may have."""
    before = dict(os.environ)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "HYDRA_FULL_ERROR"):
        os.environ.pop(name, None)
    os.environ["NETRC"] = os.devnull
    yield
    os.environ.clear()
    os.environ.update(before)


@lru_cache(maxsize=64)
def _composed(command: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra_compose(command, overrides=[*overrides])


def compose_train(*overrides: str, run_dir: Path | str = "unused", command: str = "train") -> DictConfig:
    """What ``python train.py <overrides>``, or another command, composes."""
    GlobalHydra.instance().clear()
    config = copy.deepcopy(_composed(command, overrides))
    config.run_dir = str(run_dir)
    return config


@pytest.fixture(autouse=True, scope="session")
def _composed_once():
    """A command composes its configuration once. Hydra does so twice, first to read ``hydra.mode``."""

    def mode(self, config_name, overrides):
        return RunMode.MULTIRUN if "hydra.mode=MULTIRUN" in overrides else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", mode)
        yield


@pytest.fixture(scope="session")
def compose() -> Callable[..., DictConfig]:
    return compose_train


def arguments_of(target: Callable) -> dict[str, Any]:
    """Names and defaults of the arguments of a class or function.

    ``**loading: Unpack[Loading]`` stands for the entries of Loading, whose defaults the base class has.
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            found[name] = parameter.default
        elif get_origin(parameter.annotation) is Unpack:
            base = arguments_of(target.__mro__[1])  # pyright: ignore[reportAttributeAccessIssue]
            found |= {entry: base[entry] for entry in get_args(parameter.annotation)[0].__annotations__}
    return found


@pytest.fixture(scope="session", name="arguments_of")
def _arguments_of() -> Callable[[Callable], dict[str, Any]]:
    return arguments_of


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def tiny_run(tmp_path) -> Callable[..., SimpleNamespace]:
    """Builds, and does not start, a tiny run without logger: config, data, module, trainer, folder."""

    def build_run(*overrides: str, callbacks=(), folder: Path = tmp_path) -> SimpleNamespace:
        from nelbo.compose import build

        config = compose_train(*TINY, "logger=none", *overrides, run_dir=folder)
        torch.manual_seed(config.seed)
        data = instantiate(config.data)
        module = build.build_module(config, data.spec)
        trainer = build.build_trainer(
            config,
            [*build.build_callbacks(config, data.spec, module.bound.chain), *callbacks],
            build.build_loggers(config, folder),
        )
        fit = lambda: trainer.fit(module, datamodule=data)  # noqa: E731
        return SimpleNamespace(
            config=config, data=data, module=module, trainer=trainer, folder=folder, fit=fit
        )

    return build_run


@pytest.fixture
def command(tmp_path, capfd) -> Callable[..., SimpleNamespace]:
    """Runs ``python train.py <arguments>`` in this process: exit code, stdout, stderr, run folder."""

    def run(*arguments: str, job=None, folder: Path = tmp_path / "run", name="train") -> SimpleNamespace:
        capfd.readouterr()
        code = run_command(name, *arguments, job=job, folder=folder)
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, folder=folder)

    return run


@pytest.fixture
def evaluate(command, tmp_path) -> Callable[..., SimpleNamespace]:
    """Runs ``python evaluate.py <arguments>`` in this process, in a new folder each time."""

    def run(*arguments: str, **options) -> SimpleNamespace:
        number = len(list(tmp_path.glob("evaluation*")))
        return command(
            *arguments, **({"name": "evaluate", "folder": tmp_path / f"evaluation{number}"} | options)
        )

    return run


def run_command(name: str, *arguments: str, folder: Path, job=None) -> int:
    """``python <name>.py <arguments>`` in this process; returns the exit code."""
    from nelbo.cli.command import run

    job = job or getattr(importlib.import_module(f"nelbo.cli.{name}"), name)
    before = dict(os.environ), sys.argv
    resumes = any(argument.startswith("resume=") and argument != "resume=auto" for argument in arguments)
    sys.argv = [f"{name}.py", *([] if resumes else [f"hydra.run.dir={folder}"]), *arguments]
    GlobalHydra.instance().clear()
    try:
        run(name, job)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before[1]
        os.environ.clear()
        os.environ.update(before[0])
    return 0


@pytest.fixture(scope="session")
def run_in_process() -> Callable[..., int]:
    """``python <name>.py <arguments>`` in this process; the exit code."""
    return run_command


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> SimpleNamespace:
    """A whole tiny run of the default choices (but a small network): its folder and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run_command("train", *TINY, folder=folder)
    assert code == 0, out.getvalue()
    return SimpleNamespace(folder=folder, out=out.getvalue())


class Trainer(SimpleNamespace):
    """As much of a Trainer as one training step asks for."""

    def __init__(self, batch: int = 0, world_size: int = 1, rank: int = 0) -> None:
        fit_loop = SimpleNamespace(total_batch_idx=batch)
        super().__init__(fit_loop=fit_loop, world_size=world_size, global_rank=rank)


@pytest.fixture
def stub_trainer() -> Callable[..., Trainer]:
    """Gives a module a Trainer that says which batch this is, and on which rank of how many."""
    alive = []  # the module holds only a weak reference

    def attach(module, **options) -> None:
        alive.append(Trainer(**options))
        module.trainer = alive[-1]

    return attach


@pytest.fixture(scope="session")
def improved_diffusion_golden() -> Callable[[str], SimpleNamespace]:
    """Reads a file of ``tests/golden``: its arrays, its weights, and the flags that made its model."""

    def read(name: str) -> SimpleNamespace:
        made_with = json.loads((ROOT / f"tests/golden/{name}.json").read_text())
        with np.load(ROOT / f"tests/golden/{name}.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file}
        names = [key for key in arrays if key.startswith("net.")]
        channels, side, _ = made_with["image"]
        flags = {
            "image_size": side,
            "in_channels": channels,
            "num_channels": made_with["model_channels"],
            "num_res_blocks": made_with["num_res_blocks"],
            "num_heads": made_with["num_heads"],
            "channel_mult": made_with["channel_mult"],
            "attention_resolutions": ",".join(str(side // f) for f in made_with["attention_downsamples"]),
            "learn_sigma": made_with["variance"] == "LEARNED_RANGE",
            "sigma_small": made_with["variance"] == "FIXED_SMALL",
            "predict_xstart": made_with["mean"] == "START_X",
            "class_cond": made_with["num_classes"] is not None,
            "diffusion_steps": made_with["T"],
            "noise_schedule": made_with["schedule"],
            "timestep_respacing": made_with["respace"] or "",
            "rescale_timesteps": made_with["rescale_timesteps"],
            "use_scale_shift_norm": made_with["use_scale_shift_norm"],
        }
        weights = {key.removeprefix("net."): arrays.pop(key) for key in names}
        return SimpleNamespace(arrays=arrays, weights=weights, flags=flags, levels=made_with["levels"])

    return read
