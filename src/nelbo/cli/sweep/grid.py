"""Every combination of the choices on the command line."""

import math
from collections.abc import Mapping
from itertools import islice, product
from typing import Any

from hydra.errors import HydraException

from nelbo.cli.sweep.folder import MAX_JOBS, print_finished_jobs, sweep_folder
from nelbo.cli.sweep.job import Job
from nelbo.cli.sweep.sweeper import JobSweeper


class GridSweeper(JobSweeper):
    """Runs every combination of choices, resumes where it was interrupted, and ends with a table of the runs.

    Args:
        max_batch_size: jobs that are passed to the launcher at a time; None for all.
        params: choices, as on the command line.

    Raises:
        ValueError: for a batch size below 1.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, Any] | None = None) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ValueError(f"hydra.sweeper.max_batch_size={max_batch_size} must be at least 1, or null")
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def sweep(self, arguments: list[str]) -> Any:
        """Run all combinations; all are composed before the first is run.

        Raises:
            HydraException: for options that cannot be composed.
            ValueError: for a folder with jobs of other options, or too many jobs.
            SweepFailedError: when some jobs failed.
        """
        jobs = self._jobs(arguments)
        for job in jobs:
            job.check_same_options()
        size = self.max_batch_size or len(jobs)
        with sweep_folder(self.sweep_config) as known:
            known += jobs
            print_finished_jobs(jobs)
            for start in range(0, len(jobs), size):
                self.launch(jobs[start : start + size])

    def _jobs(self, arguments: list[str]) -> list[Job]:
        """One job for each combination.

        Raises:
            HydraException: for options that cannot be composed, or a range that is not discrete.
        """
        options: dict[str, list[str]] = {}
        chosen: set[str] = set()
        for override in self.parse(arguments):
            name = override.get_key_element()
            if not override.is_sweep_override():
                options[name] = [f"{name}={override.get_value_element_as_str()}"]
                continue
            if not override.is_discrete_sweep():
                raise HydraException(f"{override.input_line}: expected a list, range(...) or choice(...)")
            values = list(islice(override.sweep_string_iterator(), MAX_JOBS + 1))
            options[name] = [f"{name}={value}" for value in values]
            chosen.add(name)
        if math.prod(map(len, options.values())) > MAX_JOBS:
            raise ValueError(f"{' '.join(sorted(chosen))}: a sweep has at most {MAX_JOBS} jobs")
        jobs = []
        for number, combination in enumerate(product(*options.values())):
            pairs = [option.partition("=") for option in combination]
            choices = {name: value for name, _, value in pairs if name in chosen}
            jobs.append(self.make_job(number, combination, choices))
        return jobs
