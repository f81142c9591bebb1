"""A search among choices and intervals, by Optuna.

A study is a list of trials in a storage, which a second command continues. Trial n is job n of the sweep;
an interrupted trial has the state "running" in the storage, and is resumed in its folder.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from nelbo.atomic_file import read_bytes
from nelbo.cli.sweep.folder import print_finished_jobs, sweep_folder
from nelbo.cli.sweep.job import Job
from nelbo.cli.sweep.sweeper import JobSweeper
from nelbo.compose.stored_config import excerpt

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
MAX_JOURNAL = 2**30
FOLDER = "folder"  # of a trial's sweep, in the storage: several sweeps may share a study


@dataclass(frozen=True)
class Space:
    """What is searched: the distribution of each option, and the options that all trials share."""

    distributions: "dict[str, BaseDistribution]"
    fixed: list[str]


class OptunaSweeper(JobSweeper):
    """Run the trials that Optuna suggests, and report their bounds to it.

    Args:
        n_trials: in the study, with those of earlier commands.
        n_jobs: trials at a time, -1 for as many as there are cores.
        study_name: in the storage.
        storage: a URL of SQLAlchemy's.
        direction: ``minimize`` or ``maximize``.
        seed: of the sampler.
        sampler: makes the sampler of a trial, from a seed.
        params: the space, as on the command line, which overrules it.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        study_name: str,
        storage: str,
        direction: Literal["minimize", "maximize"],
        seed: int,
        sampler: "Callable[..., BaseSampler]",
        params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params)
        self.n_trials = n_trials
        self.n_jobs = n_jobs if n_jobs > 0 else os.cpu_count() or 1
        self.study_name = study_name
        self.storage = storage
        self.direction: Literal["minimize", "maximize"] = direction
        self.seed = seed
        self.sampler = sampler

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has as many as it should.

        Raises:
            ValueError: for a space that Optuna cannot search, or a folder with jobs of other options.
            SweepFailedError: when some jobs failed.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = self._space(arguments)
        folder = self.sweep_config.hydra.sweep.dir
        if "?" in folder and folder in self.storage:  # what follows it in a URL is no part of the path
            raise ValueError(f"hydra.sweep.dir={folder}: a search needs a folder without ? in its name")
        Path(folder).mkdir(parents=True, exist_ok=True)  # where the storage may be
        check_journal(self.storage)
        study = optuna.create_study(
            study_name=self.study_name, storage=self.storage, direction=self.direction, load_if_exists=True
        )
        begun = {trial.number: self._job(trial, space) for trial in self._own_trials(study)}
        for job in begun.values():
            job.check_same_options()
        with sweep_folder(self.sweep_config, tries_again=False) as known:
            known += begun.values()
            print_finished_jobs(known)
            for trials in self._batches(study, space):
                batch = {trial.number: begun.get(trial.number) or self._job(trial, space) for trial in trials}
                known += [job for number, job in batch.items() if number not in begun]
                self.launch(list(batch.values()))
                for number, job in batch.items():
                    _tell(study, number, job)

    def _batches(self, study: "Study", space: Space) -> "Iterator[list[FrozenTrial] | list[Trial]]":
        """Trials that were interrupted, then new ones."""
        running = [trial for trial in self._own_trials(study) if not trial.state.is_finished()]
        for start in range(0, len(running), self.n_jobs):
            yield running[start : start + self.n_jobs]
        while (missing := self.n_trials - len(study.get_trials(deepcopy=False))) > 0:
            yield [self._ask(study, space) for _ in range(min(missing, self.n_jobs))]

    def _ask(self, study: "Study", space: Space) -> "Trial":
        """A new trial. Its sampler is seeded by its number: a continued search does not repeat itself."""
        study.sampler = self.sampler(seed=self.seed + len(study.get_trials(deepcopy=False)))
        trial = study.ask(space.distributions)
        trial.set_user_attr(FOLDER, self._folder)
        return trial

    def _own_trials(self, study: "Study") -> "list[FrozenTrial]":
        trials = study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.user_attrs.get(FOLDER) == self._folder]

    @property
    def _folder(self) -> str:
        return str(Path(self.sweep_config.hydra.sweep.dir).resolve())

    def _job(self, trial: "FrozenTrial | Trial", space: Space) -> Job:
        self._check_options(trial, space)
        choices = {option: str(value) for option, value in trial.params.items()}
        overrides = [*space.fixed, *(f"{option}={value}" for option, value in choices.items())]
        return self.make_job(trial.number, overrides, choices)

    def _check_options(self, trial: "FrozenTrial | Trial", space: Space) -> None:
        """Compare the options of a trial with the space: the storage may come from elsewhere.

        Raises:
            ValueError: for an option that is not in the space, or has another distribution there.
        """
        from optuna.distributions import CategoricalDistribution, check_distribution_compatibility

        for option, value in trial.params.items():
            try:
                check_distribution_compatibility(trial.distributions[option], space.distributions[option])
                # SQLite stores a text where a number should be
                is_valid = isinstance(trial.distributions[option], CategoricalDistribution) or (
                    type(value) in (int, float)
                )
            except (KeyError, ValueError):
                is_valid = False
            if not is_valid:
                raise ValueError(
                    f"trial {trial.number} of the study {self.study_name} has other options than this search "
                    f"({excerpt(option)}): choose another hydra.sweep.dir or hydra.sweeper.study_name"
                )

    def _space(self, arguments: list[str]) -> Space:
        last = {override.get_key_element(): override for override in self.parse(arguments)}
        return Space(
            distributions={
                option: _distribution(override)
                for option, override in last.items()
                if override.is_sweep_override()
            },
            fixed=[str(o.input_line) for o in last.values() if not o.is_sweep_override()],
        )


def check_journal(storage: str) -> None:
    """Check that a journal of SQLite names no other file, which SQLite would delete.

    A journal of our own searches ends without such a name (https://sqlite.org/fileformat2.html, section "The
    Rollback Journal").

    Args:
        storage: a URL of SQLAlchemy.

    Raises:
        ValueError: naming the journal.
    """
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    path = Path(f"{os.path.realpath(url.database or '')}-journal")  # SQLite follows links as well
    if url.get_backend_name() != "sqlite" or not path.exists():
        return
    if read_bytes(path, MAX_JOURNAL).endswith(JOURNAL_MAGIC):
        raise ValueError(f"{path} names another database, and is refused: remove it")


def _distribution(override: Override) -> "BaseDistribution":
    """``interval(a,b)``, ``int(interval(a,b))``, ``range(a,b,step)``, ``tag(log,...)`` of these, or a list.

    Raises:
        ValueError: for an interval that is empty, or not positive and logarithmic.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = override.value()
    if isinstance(values, IntervalSweep):
        assert values.start is not None
        assert values.end is not None
        kind = IntDistribution if isinstance(values.start, int) else FloatDistribution
        return kind(values.start, values.end, log="log" in values.tags)  # pyright: ignore[reportArgumentType]
    if isinstance(values, RangeSweep):
        numbers = list(values.range())
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(numbers[0], numbers[-1], log="log" in values.tags, step=int(values.step))
        return FloatDistribution(float(numbers[0]), float(numbers[-1]), step=float(values.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _tell(study: "Study", number: int, job: Job) -> None:
    """The value of a trial, or that it has none; a trial that failed does not steer the search."""
    from optuna.trial import TrialState

    job_status = job.read_status()
    value = None if job_status is None or job_status.failure is not None else job_status.objective
    if value is None or not math.isfinite(value):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)
