"""Resume an interrupted run: ``python train.py resume=outputs/2026-01-31/12-00-00``.

The configuration is the one that the run saved, as plain values, with the options of this command in it.
Hydra composes the choices of the run for one purpose: to check the options of this command against them.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nelbo.atomic_file import read_yaml
from nelbo.cli.launch import is_launched
from nelbo.cli.overrides import (
    AUTO,
    WITHOUT_HYDRA_FILES,
    as_typed,
    option_name,
    quoted,
    resumed_folder,
    split_command_line,
    value_of,
)
from nelbo.cli.project import searched_folders
from nelbo.cli.started import started_command
from nelbo.compose.config import to_plain
from nelbo.compose.resumed_config import check_outputs, linked_value, links
from nelbo.compose.stored_config import plain_config, validate_stored
from nelbo.runs.paths import CHECKPOINTS, CONFIG, EVALUATION, LAST
from nelbo.runs.run_options import read_overrides
from nelbo.runs.summary import finished_step

if TYPE_CHECKING:
    from nelbo.runs.resume_point import ResumePoint
    from nelbo.training.errors import Interrupted

LIMITS = ("max_steps", "max_epochs", "max_time")  # of trainer: each of them ends a training
# options that may change when a run is resumed
ALLOWED = re.compile(
    r"(trainer|logger|hydra)\..+|logger|checkpoint_every|allow_changed_data|trust|data\.(num_workers|root)|"
    r"callbacks\.\w+\.cache"
)


def add_resumed_run(arguments: list[str]) -> list[str]:
    """The command line that Hydra composes; unchanged where no run is resumed.

    ``resume=auto hydra.run.dir=FOLDER`` resumes the run in the folder, or starts one there: a job that may be
    requeued is started by the same line every time. The choices of the run come first, so that Hydra checks
    the new options against them. The new options are those after ``resume=``.

    Raises:
        ValueError: for a folder without a run, or options that would change what is trained.
    """
    run_dir = resumed_folder(arguments)
    if run_dir is None or is_launched():  # a rank has the command line already
        return arguments
    if value_of(arguments, "resume") == AUTO and not any((run_dir / name).exists() for name in CHECKPOINTS):
        if (run_dir / EVALUATION).exists():
            raise ValueError(
                f"resume=auto: {run_dir} already holds {EVALUATION}: choose another hydra.run.dir"
            )
        return arguments  # a new run
    if not (run_dir / CONFIG).is_file():
        raise ValueError(f"resume={run_dir}: there is no run in it ({CONFIG} is missing)")
    other = value_of(arguments, "hydra.run.dir")
    if other is not None and Path(other).resolve() != run_dir.resolve():
        raise ValueError(f"hydra.run.dir={other}: a run is resumed in its folder, {run_dir}; leave it out")
    started_with = read_overrides(run_dir)
    flags, options = split_command_line(arguments)
    new = [
        option
        for option in options
        if option_name(option) not in ("resume", "hydra.run.dir", "hydra.output_subdir")
    ]
    for option in new:
        if option not in started_with:
            _check_change_allowed(option)
    allowed = [option for option in new if ALLOWED.fullmatch(option_name(option))]
    value = quoted(str(run_dir.resolve()))
    where = [f"resume={value}", f"hydra.run.dir={value}", WITHOUT_HYDRA_FILES]
    folders = searched_folders(arguments)
    choices = [option for option in started_with if _is_choice(option, folders)]
    return [*flags, *choices, *where, *allowed]


def saved_config(run_dir: Path, trust: str | Sequence[str] | None = None) -> dict[str, Any]:
    """The stored configuration of a run, validated.

    Args:
        run_dir: the run's folder.
        trust: components that the user trusts in addition to the known ones.

    Raises:
        ValueError: where there is no run of ``train.py``, or its configuration is refused.
    """
    path = run_dir / CONFIG
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("trainer"), dict):
        raise ValueError(f"resume={run_dir}: this is not a run of train.py, or its {CONFIG} is damaged")
    return validate_stored(content, path, trust)


def continued_config(config: DictConfig, run_dir: Path) -> DictConfig:
    """The stored configuration of a run, with the options of this command.

    Args:
        config: composed by Hydra from the command line of :func:`add_resumed_run`.
        run_dir: the run's folder.

    Raises:
        ValueError: where there is no run, or its configuration is refused.
    """
    stored, composed = saved_config(run_dir, config.trust), to_plain(config)
    follows = links(stored)
    saved, given = OmegaConf.create(stored), OmegaConf.create(composed)
    names = [option_name(option) for option in HydraConfig.get().overrides.task]
    for name in names[names.index("resume") + 1 :] if "resume" in names else ():
        if name == "trust":
            continue  # of this command alone
        OmegaConf.update(saved, name, OmegaConf.select(given, name), merge=False, force_add=True)
    saved.run_dir = str(run_dir)
    continued = plain_config(to_plain(saved, resolve=False), run_dir / CONFIG)
    for name, text in follows:
        OmegaConf.update(continued, name, linked_value(text, to_plain(continued)), merge=False)
    check_outputs(to_plain(continued), composed, run_dir / CONFIG)
    return continued


def is_complete(config: DictConfig, run_dir: Path) -> bool:
    """Whether a run is finished, and its limits do not ask for more steps than it has."""
    step = finished_step(run_dir)
    if step is None:
        return False
    trained, asked = read_yaml(run_dir / CONFIG)["trainer"], to_plain(config.trainer)
    if all(trained.get(name) == asked.get(name) for name in LIMITS):
        return True
    return 0 <= asked["max_steps"] <= step


def restore_run(config: DictConfig, run_dir: Path, point: "ResumePoint | None") -> None:
    """Restore the files of a run to a checkpoint and store its configuration, on rank 0.

    Args:
        config: that training resumes with; receives ``logger.tensorboard.purge_step``.
        run_dir: the run's folder.
        point: the checkpoint; None to start again.

    Raises:
        OSError: for a file that cannot be written.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from nelbo.runs.resume_point import rewind
    from nelbo.runs.run_options import write_config

    if rank_zero_only.rank != 0:
        return
    rewind(run_dir, point)
    if point is None:
        print(f"{run_dir} has no checkpoint: training starts at step 0", flush=True)
    else:
        print(f"resuming at step {point.step}, from {point.path}", flush=True)
    write_config(to_plain(config), run_dir)
    if "tensorboard" in (config.logger or {}):  # hide what was logged after this step
        step = 0 if point is None else point.step
        OmegaConf.update(config, "logger.tensorboard.purge_step", step + 1, force_add=True)


def check_learning_rate(config: DictConfig, point: "ResumePoint | None") -> None:
    """Warn when another number of steps makes the learning rate jump where the run is resumed.

    Args:
        config: that the run continues with.
        point: the checkpoint; None to start again.
    """
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_warn

    if point is None or "total_steps" not in config.lr_schedule:
        return
    before = point.content["nelbo"]["config"]["lr_schedule"].get("total_steps")
    now, step = config.lr_schedule.total_steps, point.step
    if before == now or not isinstance(before, int):
        return

    def rate(total_steps: int) -> float | None:
        optimizer = instantiate(config.optimizer)([torch.nn.Parameter(torch.zeros(()))])
        schedule = instantiate(config.lr_schedule, total_steps=total_steps)(optimizer)
        if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            return None  # others cannot be asked for the rate of a step
        return float(schedule.base_lrs[0]) * schedule.lr_lambdas[0](step)

    rates = rate(before), rate(now)
    change = "" if None in rates else f" from {rates[0]:.3g} to {rates[1]:.3g}"
    rank_zero_warn(
        f"trainer.max_steps={now} in place of {before} stretches the lr_schedule: at step {step} the "
        f"learning rate changes{change}; if a run is to be extended later, start it with lr_schedule=constant"
    )


def resume_hint(run_dir: Path, stop: "Interrupted") -> str:
    """The end of a message: what is saved where, and the command that resumes the run."""
    here = Path.cwd()
    shown = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    last = shown / LAST
    saved = ""
    if last.exists():
        is_earlier = stop.saved_step < stop.step
        saved = f"; step {stop.saved_step} is saved in {last}" if is_earlier else f", saved in {last}"
    return f"{saved}; resume with: {started_command().shown} {as_typed('resume', str(shown))}"


def requeue_slurm_job() -> None:
    """Ask SLURM to start this job again.

    Raises:
        ValueError: when SLURM refuses.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    ended = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if ended.returncode:
        raise ValueError(f"SLURM does not requeue job {job}: {' '.join(ended.stderr.split())}")
    print(f"SLURM will start job {job} again", file=sys.stderr)


def _is_choice(option: str, folders: Sequence[Path]) -> bool:
    """Whether an option chooses a yaml file of the configuration folders: ``model=mlp``."""
    found = re.fullmatch(r"(\w[\w/]*)(?:@\w+)?=([\w.-]+)", option)
    return found is not None and any((folder / found[1] / f"{found[2]}.yaml").is_file() for folder in folders)


def _check_change_allowed(option: str) -> None:
    """Check that an option does not change what is trained.

    Raises:
        ValueError: naming the option and those that are allowed.
    """
    name = option_name(option)
    if not ALLOWED.fullmatch(name):
        raise ValueError(
            f"{option}: not allowed with resume=, which accepts trainer.…=, logger=, checkpoint_every=, "
            "data.num_workers=, data.root=, callbacks.….cache=, allow_changed_data= and trust="
        )
