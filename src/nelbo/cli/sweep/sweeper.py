"""What the sweepers have in common: setup by Hydra, and reading of the options."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from nelbo.cli.sweep.job import Job, make_job
from nelbo.cli.sweep.launch import launch_jobs
from nelbo.cli.sweep.run_job import runs_in_sequence


class JobSweeper(Sweeper):
    """Base of the sweepers: makes jobs and launches those that are not done.

    Args:
        params: choices, as on the command line, which overrules them.
    """

    def __init__(self, params: Mapping[str, Any] | None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep."""
        self.sweep_config = config
        self.loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context, task_function, config
        )

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """The options of ``params`` and of the command line.

        Raises:
            HydraException: for an option that Hydra cannot read.
        """
        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        return OverridesParser.create(config_loader=self.loader).parse_overrides(given)

    def make_job(self, number: int, overrides: Sequence[str], choices: Mapping[str, str]) -> Job:
        """The job of these options, see :func:`make_job`."""
        return make_job(number, overrides, choices, self.sweep_config, self.loader)

    def launch(self, jobs: Sequence[Job]) -> None:
        """Run those of the jobs that are not done."""
        launch_jobs(self.launcher, jobs, runs_in_sequence(self.sweep_config.hydra))
