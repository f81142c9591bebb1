"""A job of a sweep: its options, its folder, and the overrides with which Hydra launches it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from nelbo.atomic_file import read_json
from nelbo.cli.overrides import WITHOUT_HYDRA_FILES, quoted
from nelbo.runs.job_status import FILE_NAME, JobStatus, read_job_status
from nelbo.runs.paths import OVERRIDES, SUMMARY
from nelbo.runs.run_options import read_overrides
from nelbo.runs.summary import is_finished
from nelbo.text import printable

WANDB = {"name": "logger.wandb.name=", "group": "logger.wandb.group="}


@dataclass(frozen=True)
class Job:
    """One combination of options.

    Attributes:
        command: ``train``, ``evaluate`` or ``sample``.
        overrides: its options, as on a command line.
        choices: those of them that the sweep is about.
        name: of its folder in that of the sweep.
        folder: where it runs.
        wandb: overrides that name its W&B run and group it with the others, where it is not named otherwise.
    """

    command: str
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    name: str
    folder: Path
    wandb: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The choices in a line."""
        return printable(" ".join(f"{option}={value}" for option, value in self.choices.items()))

    def read_status(self) -> JobStatus | None:
        """Its result; None before its end. A training that has written its summary is finished."""
        found = read_job_status(self.folder)
        if found is None and self.command == "train" and self.is_begun and is_finished(self.folder):
            summary = read_json(self.folder / SUMMARY)
            value = next(summary[name] for name in ("val/bpd", "val/nelbo") if name in summary)
            return JobStatus(None, value, summary["train_seconds"])
        return found

    @property
    def is_begun(self) -> bool:
        """Whether it was started: its folder has the options of the job."""
        return (self.folder / OVERRIDES).is_file()

    def is_done(self) -> bool:
        """Whether it finished without a failure."""
        job_status = self.read_status()
        return job_status is not None and job_status.failure is None

    def check_same_options(self) -> None:
        """Check that the folder does not hold a job of another sweep.

        Raises:
            ValueError: when the job's folder holds one of other options.
        """
        if not self.is_begun:
            return
        found = _compared(read_overrides(self.folder))
        if found != _compared(self.overrides):
            raise ValueError(
                f"{self.folder} holds a job of other options ({' '.join(found)}): "
                "choose another hydra.sweep.dir"
            )

    def arguments(self) -> list[str]:
        """The overrides for the launcher. A job that was started keeps its configuration and is resumed."""
        given = [*self.overrides, *self.wandb, f"hydra.sweep.subdir={quoted(self.name)}"]
        if self.title:
            given.append(f"hydra.job.name={quoted(self.title)}")
        if self.is_begun:
            given.append(WITHOUT_HYDRA_FILES)
            if self.command == "train":
                given.append(f"resume={quoted(str(self.folder))}")
        return given

    def clear(self) -> None:
        """Prepare another attempt. Trainings and samples are resumed; evaluations are repeated."""
        (self.folder / FILE_NAME).unlink(missing_ok=True)
        if self.command == "evaluate":
            for name in ("evaluation.json", "bound.parquet"):
                (self.folder / name).unlink(missing_ok=True)


def make_job(
    number: int, overrides: Sequence[str], choices: Mapping[str, str], sweep: DictConfig, loader: ConfigLoader
) -> Job:
    """The job of these options.

    Args:
        number: of the job, and the default name of its folder.
        overrides: all options.
        choices: those that the sweep is about.
        sweep: configuration of the sweep.
        loader: Hydra's.

    Raises:
        HydraException: for options that cannot be composed.
    """
    config = loader.load_sweep_config(sweep, list(overrides))
    with open_dict(config):
        config.hydra.job.num = number
        config.hydra.job.id = number
    folder = Path(sweep.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    job = Job(
        sweep.hydra.job.config_name, tuple(overrides), dict(choices), str(config.hydra.sweep.subdir), folder
    )
    return replace(job, wandb=_wandb(config, job))


def _compared(overrides: Sequence[str]) -> list[str]:
    """Without ``trust``, and the names of the W&B run, which depend on where the sweep's folder is."""
    ignored = (*WANDB.values(), "trust=")
    return [override for override in overrides if not override.startswith(ignored)]


def _wandb(config: DictConfig, job: Job) -> tuple[str, ...]:
    logger = (config.get("logger") or {}).get("wandb")
    if logger is None:
        return ()
    meant = {"name": job.title or job.name, "group": "_".join(job.folder.absolute().parent.parts[-2:])}
    # an interpolation may refer to values that only the job has
    free = [key for key in meant if not OmegaConf.is_interpolation(logger, key) and logger[key] is None]
    if os.environ.get("WANDB_RUN_GROUP"):  # which W&B reads where no option is given
        free = [key for key in free if key != "group"]
    return tuple(f"{WANDB[key]}{quoted(meant[key])}" for key in free)
