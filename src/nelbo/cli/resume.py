"""Going on with a run that was interrupted: ``python train.py resume=outputs/2026-01-31/12-00-00``.

The configuration is the one that the run saved, as plain values, with the options of this command in it.
Hydra composes the choices of the run for one purpose: to check the options of this command against them.
"""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nelbo.atomic_file import UNFINISHED, DamagedFileError, read_json, replacing
from nelbo.cli.launch import is_launched
from nelbo.cli.overrides import as_typed, quoted, split_command_line, value_of
from nelbo.compose.stored_config import CONFIG_DIR, linked_value, links, read_yaml, to_plain, validate_stored

if TYPE_CHECKING:
    from nelbo.data import DataRecord

CONFIG, OPTIONS, SUMMARY = ".hydra/config.yaml", ".hydra/overrides.yaml", "summary.json"
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/previous.ckpt")  # newest first
AUTO = "auto"
# what may change when a run goes on
ALLOWED = re.compile(
    r"(trainer|logger|hydra)\..+|logger|checkpoint_every|allow_changed_data|trust|data\.(num_workers|root)"
)


def with_the_run_to_resume(arguments: list[str]) -> list[str]:
    """The command line that Hydra composes; unchanged where no run is resumed.

    ``resume=auto hydra.run.dir=FOLDER`` resumes the run in the folder, or starts one there: a job that may be
    requeued is started by the same line every time. The choices of the run come first, so that Hydra checks
    the new options against them. The new options are those after ``resume=``.

    Raises:
        ValueError: for a folder without a run, or options that would change what is trained.
    """
    word = value_of(arguments, "resume")
    if word is None or is_launched():  # a rank has the command line already
        return arguments
    if not word:
        raise ValueError("resume= names no run: resume=FOLDER resumes one, without it a new one starts")
    if word == AUTO:
        folder = value_of(arguments, "hydra.run.dir")
        if folder is None:
            raise ValueError("resume=auto must know where: add hydra.run.dir=FOLDER")
        if not any((Path(folder) / name).exists() for name in CHECKPOINTS):
            return arguments
        word = folder
    run_dir = Path(word)
    if not (run_dir / CONFIG).is_file():
        raise ValueError(f"resume={run_dir}: there is no run in it ({CONFIG} is missing)")
    started_with = _options(run_dir)
    flags, options = split_command_line(arguments)
    new = [
        option
        for option in options
        if _name(option) not in ("resume", "hydra.run.dir", "hydra.output_subdir")
    ]
    for option in new:
        if option not in started_with:
            _check_change_allowed(option)
    allowed = [option for option in new if ALLOWED.fullmatch(_name(option))]
    folder = quoted(str(run_dir.resolve()))
    where = [f"resume={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    return [*flags, *filter(_is_choice, started_with), *where, *allowed]


def saved_config(run_dir: Path, trust: str | Sequence[str] | None = None) -> DictConfig:
    """What a run was trained with, validated.

    Args:
        run_dir: the run's folder.
        trust: components that the user trusts besides the known ones.

    Raises:
        ValueError: where there is no run of ``train.py``, or its configuration is refused.
    """
    path = run_dir / CONFIG
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("trainer"), dict):
        raise ValueError(f"resume={run_dir}: this is not a run of train.py, or its {CONFIG} is damaged")
    return OmegaConf.create(validate_stored(content, path, trust))


def continued_config(config: DictConfig, run_dir: Path) -> DictConfig:
    """What the run was trained with, and the options of this command.

    Args:
        config: what Hydra composed from the command line that :func:`with_the_run_to_resume` made.
        run_dir: the run's folder.

    Raises:
        ValueError: where there is no run, or its configuration is refused.
    """
    saved = saved_config(run_dir, config.trust)
    follows = links(to_plain(saved))
    composed = OmegaConf.create(to_plain(config))
    names = [_name(option) for option in HydraConfig.get().overrides.task]
    for name in names[names.index("resume") + 1 :] if "resume" in names else ():
        if name == "trust":
            continue  # of this command alone
        OmegaConf.update(saved, name, OmegaConf.select(composed, name), merge=False, force_add=True)
    saved.run_dir = str(run_dir)
    for name, text in follows:
        OmegaConf.update(saved, name, linked_value(text, to_plain(saved)), merge=False)
    return saved


def save_config(config: DictConfig, run_dir: Path) -> None:
    """Write what a run is trained with as plain values: a later command reads them without interpolation.

    Raises:
        OSError: if the file cannot be written.
    """
    (run_dir / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    with replacing(run_dir / CONFIG) as unfinished:
        unfinished.write_text(yaml.safe_dump(to_plain(config), sort_keys=False), encoding="utf-8")


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The last checkpoint that is whole; one that is damaged is named. None if there is none at all.

    Raises:
        ValueError: when all of them are damaged, or the run's files say that there must have been one.
    """
    from lightning.pytorch.utilities import rank_zero_warn

    from nelbo import torch_file
    from nelbo.runs import metrics_file

    damaged = []
    for path in (run_dir / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        try:
            torch_file.load(path, mmap=True)
        except DamagedFileError:
            damaged.append(path)
            continue
        for other in damaged:
            rank_zero_warn(f"{other} is damaged: going on from {path}, the one before it")
        return path
    if damaged:
        raise ValueError(
            f"{' and '.join(map(str, damaged))}: damaged, and training can go on from no other; "
            f"remove it to begin again with the same resume={run_dir}"
        )
    if (run_dir / SUMMARY).exists():  # to begin again would remove its results
        raise ValueError(
            f"{run_dir} has a {SUMMARY} but no checkpoint: put {CHECKPOINTS[0]} back, or remove {SUMMARY} to "
            "train it again from the beginning"
        )
    metrics = run_dir / metrics_file.METRICS_FILE
    trained = metrics_file.last_step(metrics)
    if trained >= 0 and trained > read_yaml(run_dir / CONFIG).get("checkpoint_every", trained):
        raise ValueError(
            f"{run_dir} was trained to step {trained} at least and has no checkpoint: put {CHECKPOINTS[0]} "
            f"back, or remove {metrics.name} to train it again from the beginning"
        )
    return None


def is_finished(run_dir: Path) -> bool:
    """Whether a run has reached its end: its summary is there, and whole."""
    return finished_step(run_dir) is not None


def has_nothing_to_do(config: DictConfig, run_dir: Path) -> bool:
    """Whether a run is finished and not asked for more steps than it has."""
    step = finished_step(run_dir)
    return step is not None and not 0 <= step < config.trainer.max_steps


def check_data(
    run_dir: Path, checkpoint: Path | None, data: "DataRecord", conditional: bool, allow_changed_data: bool
) -> None:
    """Compare the data with the record in the checkpoint that training resumes from.

    Args:
        run_dir: the run's folder.
        checkpoint: that training resumes from; None to begin again.
        data: what there is now.
        conditional: whether the network is given the class labels, which must not change their meaning.
        allow_changed_data: warn in place of raising an error, where the classes are the same.

    Raises:
        ValueError: naming what differs.
    """
    import torch
    from lightning.pytorch.utilities import rank_zero_warn

    from nelbo.data import DataRecord

    if checkpoint is None:
        return
    kept = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["nelbo"].get("data")
    if kept is None:
        return  # of a version that did not record it
    before = DataRecord.from_dict(kept)
    found = before.differences(data)
    if not found:
        return
    moved = f" (data.root was {before.root}, and is {data.root})" if before.root != data.root else ""
    what = f"resume={run_dir}: the data has changed since the checkpoint{moved}: {'; '.join(found)}"
    if conditional and before.spec.class_names != data.spec.class_names:
        raise ValueError(f"{what}; the model was trained with these class names, so restore them")
    if not allow_changed_data:
        raise ValueError(f"{what}; restore the data, or train on the new data with allow_changed_data=true")
    rank_zero_warn(what)


def prepare(config: DictConfig, run_dir: Path, checkpoint: Path | None) -> None:
    """Make a run's files what they were at a checkpoint, so that it can go on. The first process does it.

    Args:
        config: what it goes on with, which is kept for the next time.
        run_dir: the run's folder.
        checkpoint: that it goes on from; None to begin again.

    Raises:
        OSError: for a file that cannot be written.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from nelbo import torch_file
    from nelbo.reports.html import FILE_NAME as REPORT
    from nelbo.runs import history

    if rank_zero_only.rank != 0:
        return
    content = None if checkpoint is None else torch_file.load(checkpoint, mmap=True)
    step = 0 if content is None else content["global_step"]

    for folder in (run_dir, run_dir / ".hydra", run_dir / "checkpoints", run_dir / "samples"):
        for unfinished in folder.glob(f"*{UNFINISHED}"):
            unfinished.unlink()
    for name in (SUMMARY, REPORT):  # of a model that is trained further
        (run_dir / name).unlink(missing_ok=True)
    history.restore(run_dir, content)
    last, previous = (run_dir / name for name in CHECKPOINTS)
    if checkpoint == previous and last.exists():
        last.replace(last.with_suffix(".damaged"))  # else it would take the place of the whole one
    save_config(config, run_dir)
    if "tensorboard" in (config.logger or {}):  # which hides what was logged after this step
        OmegaConf.update(config, "logger.tensorboard.purge_step", step + 1, force_add=True)


def check_learning_rate(config: DictConfig, checkpoint: Path | None) -> None:
    """Warn when another number of steps makes the learning rate jump where the run is resumed.

    Args:
        config: that the run continues with.
        checkpoint: that it continues from.
    """
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_warn

    from nelbo import torch_file

    if checkpoint is None or "total_steps" not in config.lr_schedule:
        return
    content = torch_file.load(checkpoint, mmap=True)
    before = content["nelbo"]["config"]["lr_schedule"].get("total_steps")
    now, step = config.lr_schedule.total_steps, content["global_step"]
    if before == now or not isinstance(before, int):
        return

    def rate(total_steps: int) -> float:
        optimizer = instantiate(config.optimizer)([torch.nn.Parameter(torch.zeros(()))])
        schedule = instantiate(config.lr_schedule, total_steps=total_steps)(optimizer)
        return schedule.base_lrs[0] * schedule.lr_lambdas[0](step)

    rank_zero_warn(
        f"trainer.max_steps={now} in place of {before} stretches lr_schedule=cosine: at step {step} the "
        f"learning rate changes from {rate(before):.3g} to {rate(now):.3g}; begin a run that is to be made "
        "longer with lr_schedule=constant"
    )


def how_to_go_on(run_dir: Path) -> str:
    """The end of a sentence: where the run is, and the command that takes it up."""
    here = Path.cwd()
    shown = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    last = shown / CHECKPOINTS[0]
    saved = f", saved in {last}" if last.exists() else ""
    return f"{saved}; go on with: python train.py {as_typed('resume', str(shown))}"


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


def finished_step(run_dir: Path) -> int | None:
    """Optimizer steps of a run that has reached its end, None for one that has not.

    A run whose summary or one of whose files is damaged or missing has not: what can be made again from its
    checkpoint is made again.
    """
    from nelbo.runs.run_folder import RunFolderError, check_files

    try:
        summary = read_json(run_dir / SUMMARY)
        check_files(run_dir, summary)
    except FileNotFoundError:
        return None
    except (DamagedFileError, RunFolderError) as error:
        warnings.warn(f"{run_dir} is not finished: {error}", stacklevel=2)
        return None
    return summary.get("step")


def _options(run_dir: Path) -> list[str]:
    """The options that a run was started with. They are compared, and never replayed except for choices."""
    path = run_dir / OPTIONS
    content = read_yaml(path) if path.is_file() else []
    return [str(option) for option in content] if isinstance(content, list) else []


def _is_choice(option: str) -> bool:
    """Whether an option chooses one of our own yaml files: ``model=mlp``."""
    found = re.fullmatch(r"(\w[\w/]*)(?:@\w+)?=([\w.-]+)", option)
    return found is not None and (CONFIG_DIR / found[1] / f"{found[2]}.yaml").is_file()


def _name(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+")


def _check_change_allowed(option: str) -> None:
    """Refuse an option that would make another run of this one.

    Raises:
        ValueError: naming it, and what is allowed.
    """
    name = _name(option)
    if not ALLOWED.fullmatch(name):
        raise ValueError(
            f"{option}: a run that goes on is trained as it was begun; with resume= there may be trainer.…=, "
            "logger=, checkpoint_every=, data.num_workers=, data.root=, allow_changed_data= and trust="
        )
